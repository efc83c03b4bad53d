package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

var inPath = regexp.MustCompile(`\{[^}]*\}`)

// TestAnonymousCallsAreRefused, every one of them, over REST and gRPC, but for health and joining.
func TestAnonymousCallsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	// The API's description is the same text in every cluster: there is nothing of this one to learn from it.
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json"} {
		if resp, body := w.restAs("", "GET", path, nil); resp.StatusCode != 200 {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
	_, text := w.rest("GET", "/openapi.json", nil)
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil || len(doc.Paths) < 20 {
		t.Fatalf("/openapi.json has %d paths: %v", len(doc.Paths), err)
	}
	calls := [][2]string{{"GET", "/metrics"}}
	for path, methods := range doc.Paths {
		for method := range methods {
			calls = append(calls, [2]string{strings.ToUpper(method), inPath.ReplaceAllString(path, "x")})
		}
	}
	for _, token := range []string{"", "wrong"} {
		for _, call := range calls {
			resp, body := w.restAs(token, call[0], call[1], strings.NewReader("{}"))
			if resp.StatusCode != 401 || resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s %s with the token %q: %s %.200s", call[0], call[1], token, resp.Status, body)
			}
		}
	}
	conn, err := grpc.NewClient(w.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	w.must(err)
	defer conn.Close()
	services := carav1.File_cara_v1_service_proto.Services()
	for n := range services.Len() {
		for m := range services.Get(n).Methods().Len() {
			method := services.Get(n).Methods().Get(m)
			name := "/" + string(services.Get(n).FullName()) + "/" + string(method.Name())
			stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, name)
			w.must(err)
			// Sending fails with io.EOF when the refusal is already here: identity comes before the body.
			_ = stream.SendMsg(&emptypb.Empty{})
			_ = stream.CloseSend()
			err = stream.RecvMsg(&emptypb.Empty{}) // returns the status of the call
			want := codes.Unauthenticated
			switch method.Name() {
			case "Join":
				want = codes.InvalidArgument
			case "StartDeviceLogin", "FinishLogin": // they make an identity, if the server has an OpenID provider
				want = codes.FailedPrecondition
			}
			if status.Code(err) != want {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
		}
	}
}

// TestFirstStartLetsTheLocalUserIn, and nobody else on the machine.
func TestFirstStartLetsTheLocalUserIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	for file, dir := range map[string]string{
		"admin.token": w.DataDir(), "join.token": w.DataDir(),
		"contexts.json": filepath.Join(w.Dir, ".config", "cara"),
	} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want 0600", file, info.Mode(), err)
		}
	}
	run := func(args ...string) testcluster.Result {
		r, err := w.Program(t.Context(), "", "caractrl", args...)
		w.must(err)
		return r
	}
	w.want(run("get", "projects"), 0, "", "no projects found\n")
	w.says("version", run("version").Stdout, "you are:     user/admin")
	w.says("context", run("context").Stdout, "CURRENT", w.URL())

	r := run("create", "token", "ci", "--role", "viewer")
	w.write(filepath.Join(w.Dir, "viewer"), r.Stdout)
	viewer := func(args ...string) testcluster.Result {
		return run(append([]string{"--token-file", filepath.Join(w.Dir, "viewer")}, args...)...)
	}
	w.want(viewer("get", "projects"), 0, "", "no projects found\n")
	if r := viewer("create", "token", "more", "--role", "admin"); r.Code != 1 || !strings.Contains(r.Stderr, "viewer") {
		t.Errorf("a viewer makes a token: %+v", r)
	}
	w.write(filepath.Join(w.Dir, "viewer"), "wrong")
	if r := viewer("get", "projects"); r.Code != 1 || !strings.Contains(r.Stderr, "token") {
		t.Errorf("a wrong token: %+v", r)
	}
}

// TestNodesSeeOnlyWhatIsTheirOwn: with the certificate of one node there is nothing to learn of another's projects.
func TestNodesSeeOnlyWhatIsTheirOwn(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	w := newWorld(t, options{})
	w.agent("n1", host, nil)
	w.agent("n2", host, nil)
	names := map[string]string{}
	for _, node := range []string{"n1", "n2"} {
		w.apply("apiVersion: caravanserai/v1\nkind: Node\nmetadata: {name: " + node + ", labels: {is: " + node + "}}\n")
		w.ctl("", "create", "secret", "of-"+node, "--from-literal", "password=pw-"+node)
		names[node] = w.name("on-" + node)
		w.apply(project(names[node], `
services:
- name: web
  image: `+testimage.WebV1+`
  env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: of-`+node+`, key: password}}}]
nodeSelector: {is: `+node+`}`))
	}
	w.running(names["n1"], names["n2"])
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.Agents["n1"].Stop(ctx)) // what follows takes its place
	conn := w.asNode("n1")
	defer conn.Close()
	projects, nodes, secrets := carav1.NewProjectServiceClient(conn), carav1.NewNodeServiceClient(conn), carav1.NewSecretServiceClient(conn)
	foreign := w.project(names["n2"])
	report := &carav1.UpdateProjectStatusRequest{
		Name: names["n2"], Uid: foreign.GetMetadata().GetUid(), Epoch: foreign.GetStatus().GetEpoch(),
		ObservedGeneration: foreign.GetMetadata().GetGeneration(), Phase: "Failed",
	}
	for what, call := range map[string]func() error{
		"read a project":      func() error { _, err := projects.GetProject(ctx, &carav1.GetRequest{Name: names["n2"]}); return err },
		"list projects":       func() error { _, err := projects.ListProjects(ctx, &carav1.ListProjectsRequest{}); return err },
		"list secrets":        func() error { _, err := secrets.ListSecrets(ctx, &carav1.ListRequest{}); return err },
		"report on another's": func() error { _, err := projects.UpdateProjectStatus(ctx, report); return err },
		"speak for another": func() error {
			_, err := nodes.Heartbeat(ctx, &carav1.HeartbeatRequest{Name: "n2", Heartbeat: &carav1.Heartbeat{}})
			return err
		},
		"delete a project": func() error {
			_, err := projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: names["n1"]})
			return err
		},
		"watch": func() error { return firstOf(ctx, conn) },
	} {
		if err := call(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v, want PermissionDenied", what, err)
		}
	}
	got, values := w.assignments(ctx, nodes)
	if want := []string{names["n1"]}; !slices.Equal(got, want) || strings.Contains(values, "pw-n2") || !strings.Contains(values, "pw-n1") {
		t.Errorf("n1 is told of %v with %q, want %v with its own password", got, values, want)
	}
	w.must(w.RestartAgent("n1"))
	w.ready("n1")
}

// asNode is a connection with the certificate of a node's agent.
func (w *testCluster) asNode(node string) *grpc.ClientConn {
	w.Helper()
	files, err := filepath.Glob(filepath.Join(w.Dir, "agent-"+node, "*.json"))
	w.must(err)
	var id struct{ Key, Certificate, CA string }
	for _, file := range files {
		text, err := os.ReadFile(file)
		w.must(err)
		if json.Unmarshal(text, &id) == nil && id.Key != "" {
			break
		}
	}
	cert, err := tls.X509KeyPair([]byte(id.Certificate), []byte(id.Key))
	w.must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(id.CA))
	conn, err := grpc.NewClient(w.Address(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{cert}, RootCAs: roots, ServerName: "cara-server", MinVersion: tls.VersionTLS13,
	})))
	w.must(err)
	return conn
}

func firstOf(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := carav1.NewWatchServiceClient(conn).Watch(ctx, &carav1.WatchRequest{Kinds: []string{"Project"}})
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

// assignments are what the server tells an agent that connects: names, and all secret values together.
func (w *testCluster) assignments(ctx context.Context, nodes carav1.NodeServiceClient) (names []string, values string) {
	w.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := nodes.Connect(ctx)
	w.must(err)
	w.must(stream.Send(&carav1.ConnectRequest{InstanceId: "test", Heartbeat: &carav1.Heartbeat{Info: &carav1.NodeInfo{Platform: "linux/amd64"}}}))
	for {
		m, err := stream.Recv()
		w.must(err)
		if a := m.GetAssignment(); a != nil {
			names = append(names, a.GetProject().GetMetadata().GetName())
			for _, v := range a.GetSecrets() {
				values += string(v) + " "
			}
		}
		if m.GetSynced() != nil {
			return names, values
		}
	}
}
