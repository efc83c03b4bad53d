package apiserver

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/dispatch"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

func TestFirstStart(t *testing.T) {
	c := newCluster(t, nil)
	info, err := carav1.NewInfoServiceClient(c.admin(t)).GetInfo(t.Context(), &emptypb.Empty{})
	if err != nil || info.GetActor() != "user/admin" || info.GetClusterId() != c.id.ClusterID() {
		t.Errorf("info %v, %v", info, err)
	}
	for _, name := range []string{identity.AdminTokenFile, identity.JoinTokenFile} {
		text, err := os.ReadFile(filepath.Join(c.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		stat, err := os.Stat(filepath.Join(c.dir, name))
		if err != nil || stat.Mode().Perm() != 0o600 || bytes.Count(text, []byte("\n")) != 1 || !bytes.HasSuffix(text, []byte("\n")) {
			t.Errorf("%s: %d lines, mode %v (%v)", name, bytes.Count(text, []byte("\n")), stat.Mode(), err)
		}
	}
	admin := c.file(t, identity.AdminTokenFile)

	// A second start changes nothing, even if a token was revoked in between.
	if _, err := carav1.NewTokenServiceClient(c.admin(t)).DeleteToken(t.Context(), &carav1.DeleteRequest{Name: firstJoin}); err != nil {
		t.Fatal(err)
	}
	c.stop()
	again := openCluster(t, c.dir, nil)
	if got := again.file(t, identity.AdminTokenFile); got != admin {
		t.Error("the second start made another admin token")
	}
	_, err = join.Join(t.Context(), again.joinConfig(t, "n1"))
	testproblem.Want(t, err, codes.Unauthenticated, "")
}

func TestNobodyIsAnonymous(t *testing.T) {
	c := newCluster(t, nil)
	for name, token := range map[string]string{
		"no token": "", "unknown id": "cara_nobody_" + identity.NewSecret(), "wrong secret": "cara_admin_" + identity.NewSecret(),
		"join token": c.file(t, identity.JoinTokenFile), "join token's parts": "cara_join_" + strings.Split(c.file(t, identity.JoinTokenFile), ".")[3],
	} {
		_, err := carav1.NewProjectServiceClient(c.dial(t, token)).ListProjects(t.Context(), &carav1.ListProjectsRequest{})
		if api.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
		if token != "" && err != nil && strings.Contains(err.Error(), token) {
			t.Errorf("%s: the error repeats the token", name)
		}
	}
}

func TestJoin(t *testing.T) {
	c := newCluster(t, nil)
	conn := c.node(t, "n1")
	info, err := carav1.NewInfoServiceClient(conn).GetInfo(t.Context(), &emptypb.Empty{})
	if err != nil || info.GetActor() != "node/n1" {
		t.Fatalf("info %v, %v", info, err)
	}
	n, err := carav1.NewNodeServiceClient(c.admin(t)).GetNode(t.Context(), &carav1.GetRequest{Name: "n1"})
	if err != nil || n.GetStatus().GetState() != api.NodeNotReady {
		t.Errorf("node %v, %v", n, err)
	}
	// A node has no access to the rest of the API.
	_, err = carav1.NewProjectServiceClient(conn).ListProjects(t.Context(), &carav1.ListProjectsRequest{})
	testproblem.Want(t, err, codes.PermissionDenied, "")
	_, err = carav1.NewNodeServiceClient(conn).Heartbeat(t.Context(), &carav1.HeartbeatRequest{Name: "n2"})
	testproblem.Want(t, err, codes.PermissionDenied, "")
}

func TestJoinRefused(t *testing.T) {
	c := newCluster(t, nil)
	tokens := carav1.NewTokenServiceClient(c.admin(t))
	create := func(name string, in *carav1.Token) string {
		in.Metadata, in.Role = &carav1.ObjectMeta{Name: name}, api.RoleJoin
		out, err := tokens.CreateToken(t.Context(), &carav1.CreateTokenRequest{Token: in})
		if err != nil {
			t.Fatal(err)
		}
		return out.GetSecret()
	}
	once := create("once", &carav1.Token{UsesLeft: 1})
	cfg := c.joinConfig(t, "n1")
	cfg.Token = once
	if _, err := join.Join(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	revoked := create("revoked", &carav1.Token{})
	if _, err := tokens.DeleteToken(t.Context(), &carav1.DeleteRequest{Name: "revoked"}); err != nil {
		t.Fatal(err)
	}
	short := create("short", &carav1.Token{ExpireAt: timestamppb.New(time.Now().Add(time.Hour))})
	err := c.db.Transact(t.Context(), func(x *state.Tx) error { // time goes by
		token, _ := state.Read[*carav1.Token](x, "short")
		x.Put(&carav1.Token{
			Metadata: token.GetMetadata(), Role: token.GetRole(), SecretHash: token.GetSecretHash(),
			ExpireAt: timestamppb.New(time.Now().Add(-time.Second)),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	good, err := api.ParseJoinToken(c.file(t, identity.JoinTokenFile))
	if err != nil {
		t.Fatal(err)
	}
	forged := good
	forged.Secret = identity.NewSecret()

	tests := []struct{ name, token, node, want string }{
		{"used up", once, "n2", "no uses left"},
		{"revoked", revoked, "n2", "revoked"},
		{"expired", short, "n2", "ended at"},
		{"wrong secret", forged.String(), "n2", "not valid"},
		{"bad name", good.String(), "No_Name", "metadata.name"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := c.joinConfig(t, test.node)
			cfg.Token = test.token
			_, err := join.Join(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if _, ok := state.Get[*carav1.Node](c.db.Cache, test.node); ok {
				t.Error("there is a node now")
			}
		})
	}
}

// TestJoinPinsTheAuthority: the agent sends nothing to a server of another cluster.
func TestJoinPinsTheAuthority(t *testing.T) {
	c := newCluster(t, nil)
	cfg := c.joinConfig(t, "n1")
	token, err := api.ParseJoinToken(cfg.Token)
	if err != nil {
		t.Fatal(err)
	}
	token.CAHash = strings.Repeat("ab", 32)
	cfg.Token = token.String()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := join.Join(ctx, cfg); !errors.Is(err, join.ErrPin) || strings.Contains(err.Error(), token.Secret) {
		t.Errorf("%v", err)
	}
	if logs := c.log.String(); strings.Contains(logs, "method=Join") {
		t.Errorf("the server was asked: %s", logs)
	}
}

func TestJoinTakenName(t *testing.T) {
	c := newCluster(t, nil)
	first := c.node(t, "n1")
	agent := connectAgent(t, first, "a")
	agent.synced()
	_, err := join.Join(t.Context(), c.joinConfig(t, "n1"))
	testproblem.Want(t, err, codes.AlreadyExists, "")
	if !strings.Contains(err.Error(), "--node-name") {
		t.Errorf("%v says not what to do", err)
	}

	// After a lease without a heartbeat, the name can be taken over, and the older certificate is no longer accepted.
	c.live.Beats.Note("n1", time.Now().Add(-dispatch.NodeLease))
	second := c.node(t, "n1")
	testproblem.Want(t, agent.ended(), codes.Aborted, api.TitleTakenOver)
	_, err = carav1.NewInfoServiceClient(first).GetInfo(t.Context(), &emptypb.Empty{})
	testproblem.Want(t, err, codes.Unauthenticated, "")
	if _, err = carav1.NewInfoServiceClient(second).GetInfo(t.Context(), &emptypb.Empty{}); err != nil {
		t.Error(err)
	}
}

// TestRenew: the new certificate works immediately, and the previous one works until the next renewal.
func TestRenew(t *testing.T) {
	c := newCluster(t, nil)
	now := time.Now()
	cfg := c.joinConfig(t, "n1")
	creds, err := join.Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join(cfg.DataDir, "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Now = func() time.Time { return now.Add(16 * 24 * time.Hour) } // past the half
	later, err := join.Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	conn := dialAs(t, creds)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- later.RenewLoop(ctx, conn) }()
	eventually(t, "a second certificate", func() bool {
		held := state.List[*carav1.Token](c.db.Cache, identity.NodeTokenPrefix("n1"))
		return len(held) == 2
	})
	eventually(t, "the new file", func() bool {
		text, err := os.ReadFile(filepath.Join(cfg.DataDir, "identity.json"))
		return err == nil && !bytes.Equal(text, kept)
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := carav1.NewInfoServiceClient(conn).GetInfo(t.Context(), &emptypb.Empty{}); err != nil {
		t.Errorf("the certificate before: %v", err)
	}
	cfg.Now = nil
	if creds, err = join.Join(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := carav1.NewInfoServiceClient(dialAs(t, creds)).GetInfo(t.Context(), &emptypb.Empty{}); err != nil {
		t.Errorf("the new certificate: %v", err)
	}
}

func TestDeleteNodeShutsItsAgentOut(t *testing.T) {
	c := newCluster(t, nil)
	conn := c.node(t, "n1")
	agent := connectAgent(t, conn, "a")
	agent.synced()
	c.create(t, web("shop"))
	c.bind(t, "shop", "n1")
	nodes := carav1.NewNodeServiceClient(c.admin(t))
	_, err := nodes.DeleteNode(t.Context(), &carav1.DeleteRequest{Name: "n1"})
	testproblem.Want(t, err, codes.FailedPrecondition, "")
	if !strings.Contains(err.Error(), "has 1 project: drain it first") {
		t.Errorf("%v does not count", err)
	}
	c.create(t, web("other"))
	if _, err := carav1.NewProjectServiceClient(c.admin(t)).DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop", Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes.DeleteNode(t.Context(), &carav1.DeleteRequest{Name: "n1"}); err != nil {
		t.Fatal(err)
	}
	testproblem.Want(t, agent.ended(), codes.PermissionDenied, "")
	_, err = carav1.NewInfoServiceClient(conn).GetInfo(t.Context(), &emptypb.Empty{})
	testproblem.Want(t, err, codes.Unauthenticated, "")
}

// TestNothingSecretIsWritten looks for values and tokens in every byte of the store and the log.
func TestNothingSecretIsWritten(t *testing.T) {
	c := newCluster(t, nil)
	const value = "hunter2-is-the-password"
	c.secret(t, "db", "", map[string]string{"password": value})
	c.secret(t, "db", "", map[string]string{"password": value + "-2", "user": "root"})
	got, err := carav1.NewSecretServiceClient(c.admin(t)).GetSecret(t.Context(), &carav1.GetRequest{Name: "db"})
	if err != nil || strings.Join(got.GetKeys(), " ") != "password user" || len(got.GetData())+len(got.GetStringData()) != 0 {
		t.Errorf("get: %v, %v", got, err)
	}
	applied, err := carav1.NewApplyServiceClient(c.admin(t)).Apply(t.Context(), &carav1.ApplyRequest{Objects: []*carav1.Object{api.Wrap(&carav1.Secret{
		ApiVersion: api.APIVersion, Kind: api.KindSecret, Metadata: &carav1.ObjectMeta{Name: "db"}, StringData: map[string]string{"password": value},
	})}})
	if err != nil || strings.Contains(applied.String(), value) || applied.GetResults()[0].GetAction() != api.ApplyConfigured {
		t.Errorf("apply: %v, %v", applied, err)
	}
	made, err := carav1.NewTokenServiceClient(c.admin(t)).CreateToken(t.Context(), &carav1.CreateTokenRequest{
		Token: &carav1.Token{Metadata: &carav1.ObjectMeta{Name: "ci"}, Role: "deployer"},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.node(t, "n1")
	if _, err := carav1.NewProjectServiceClient(c.dial(t, made.GetSecret()+"x")).ListProjects(t.Context(), &carav1.ListProjectsRequest{}); err == nil {
		t.Error("a wrong token was let in")
	}
	c.stop()

	secrets := map[string]string{"value": value}
	for name, token := range map[string]string{
		"admin token": c.file(t, identity.AdminTokenFile), "join token": c.file(t, identity.JoinTokenFile), "token": made.GetSecret(),
	} {
		secrets[name] = token[strings.LastIndexAny(token, "_.")+1:]
	}
	files := 0
	err = filepath.WalkDir(filepath.Join(c.dir, "store"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		for name, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds the %s", path, name)
			}
		}
		return err
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files, %v", files, err)
	}
	for name, secret := range secrets {
		if strings.Contains(c.log.String(), secret) {
			t.Errorf("the log holds the %s", name)
		}
	}
	if !strings.Contains(c.log.String(), "method=PutSecret") {
		t.Error("the log holds nothing at all")
	}
}

// Agents learn whose certificates are accepted: of a node that joins, and of one that is deleted.
func TestPeersAreTold(t *testing.T) {
	c := newCluster(t, nil)
	agent := connectAgent(t, c.node(t, "n1"), "a")
	_, first := agent.synced()
	began := func(node string) *timestamppb.Timestamp {
		return dispatch.AcceptedPeer(c.db.Cache, node).GetNotBefore()
	}
	want := []*carav1.Peer{{Node: "n1", NotBefore: began("n1")}}
	if d := cmp.Diff(want, first.GetPeers(), protocmp.Transform()); d != "" {
		t.Error(d)
	}
	c.node(t, "n2")
	joined := agent.routes(func(r *carav1.Routes) bool { return len(r.GetPeers()) > 0 })
	want = []*carav1.Peer{{Node: "n2", NotBefore: began("n2")}}
	if d := cmp.Diff(want, joined.GetPeers(), protocmp.Transform()); d != "" {
		t.Error(d)
	}
	certificate := began("n2").AsTime()
	if since := time.Since(certificate); since < 59*time.Minute || since > 61*time.Minute { // it begins an hour early, for clocks that are behind
		t.Errorf("certificates count that began %s ago", since)
	}
	if _, err := carav1.NewNodeServiceClient(c.admin(t)).DeleteNode(t.Context(), &carav1.DeleteRequest{Name: "n2"}); err != nil {
		t.Fatal(err)
	}
	agent.routes(func(r *carav1.Routes) bool { return slices.Equal(r.GetRemovedPeers(), []string{"n2"}) })
}

// An agent that connects again says which peers it knows, and gets the changes only. If the server cannot tell them, it gets all.
func TestPeersOfEarlierConnection(t *testing.T) {
	c := newCluster(t, nil)
	conn := c.node(t, "n1")
	c.node(t, "n2")
	connects := func(digest []byte) *carav1.Routes {
		t.Helper()
		stream, err := carav1.NewNodeServiceClient(conn).Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		agent := &fakeAgent{t: t, conn: conn, stream: stream, got: make(chan *carav1.ConnectResponse, 1000), failed: make(chan error, 1)}
		agent.says(&carav1.ConnectRequest{InstanceId: "a", Heartbeat: &carav1.Heartbeat{Info: &carav1.NodeInfo{}}, PeersDigest: digest})
		go agent.read()
		return agent.routes((*carav1.Routes).GetFull)
	}
	nodes := func(r *carav1.Routes) (names []string) {
		for _, p := range r.GetPeers() {
			names = append(names, p.GetNode())
		}
		return names
	}
	digest := func(peers ...*carav1.Peer) []byte {
		var all api.PeersDigest
		for _, p := range peers {
			all.Toggle(p)
		}
		return all[:]
	}
	first := connects(nil).GetPeers()
	c.node(t, "n3")
	c.node(t, "n4")
	if _, err := carav1.NewNodeServiceClient(c.admin(t)).DeleteNode(t.Context(), &carav1.DeleteRequest{Name: "n2"}); err != nil {
		t.Fatal(err)
	}
	changes := connects(digest(first...))
	if got := nodes(changes); !changes.GetKeepPeers() || !slices.Equal(got, []string{"n3", "n4"}) || !slices.Equal(changes.GetRemovedPeers(), []string{"n2"}) {
		t.Errorf("an agent that knows n1 and n2 got %v", changes)
	}
	now := connects(nil).GetPeers()
	if same := connects(digest(now...)); !same.GetKeepPeers() || len(same.GetPeers())+len(same.GetRemovedPeers()) > 0 {
		t.Errorf("an agent that knows all peers got %v", same)
	}
	for name, unknown := range map[string][]byte{"no digest": nil, "a digest of other peers": digest(now[1]), "something else": []byte("abc")} {
		if all := connects(unknown); all.GetKeepPeers() || !slices.Equal(nodes(all), []string{"n1", "n3", "n4"}) {
			t.Errorf("%s: the agent got %v", name, all)
		}
	}
}
