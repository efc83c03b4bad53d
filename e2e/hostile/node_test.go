package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/caravanserai/cara/agent/ingress"
	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store/pebble"
)

// cluster is a real server in this process, with its door on loopback.
type cluster struct {
	*apiserver.Server
	dir, addr string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	c := &cluster{dir: t.TempDir()}
	db, err := pebble.Open(pebble.Config{Dir: filepath.Join(c.dir, "store"), Logger: quiet})
	must(t, err)
	id, err := identity.Open(identity.Config{DataDir: c.dir, Listen: "127.0.0.1:0"})
	must(t, err)
	c.Server, err = apiserver.New(apiserver.Config{Store: db, Identity: id, Logger: quiet})
	must(t, err)
	must(t, c.FirstStart(t.Context()))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c.addr = l.Addr().String()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, identity.NewListener(l, id.TLSConfig())) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// joined is a node's identity, as a real join gives it.
func (c *cluster) joined(t *testing.T, node string) (*join.Credentials, *grpc.ClientConn) {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(c.dir, identity.JoinTokenFile))
	must(t, err)
	who, err := join.Join(t.Context(), join.Config{
		Server: c.addr, Token: strings.TrimSpace(string(token)), NodeName: node, DataDir: t.TempDir(),
	})
	must(t, err)
	conn, err := who.Dial()
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return who, conn
}

// connect opens an agent's stream that reports an ingress address, and gives each table of routes to routes.
func connect(t *testing.T, conn grpc.ClientConnInterface, address string, routes func(*carav1.Routes)) carav1.NodeService_ConnectClient {
	t.Helper()
	stream, err := carav1.NewNodeServiceClient(conn).Connect(t.Context())
	must(t, err)
	must(t, stream.Send(&carav1.ConnectRequest{InstanceId: address, Heartbeat: &carav1.Heartbeat{
		Info: &carav1.NodeInfo{Platform: "linux/amd64", IngressAddress: address},
	}}))
	_, err = stream.Recv() // the welcome
	must(t, err)
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			if r := m.GetRoutes(); r != nil {
				routes(r)
			}
		}
	})
	return stream
}

// place makes a project with a host of its own and gives it to a node, as the loops would.
func (c *cluster) place(t *testing.T, name, node string) *carav1.Project {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(c.dir, identity.AdminTokenFile))
	must(t, err)
	admin, err := grpc.NewClient("passthrough:///"+c.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer admin.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+strings.TrimSpace(string(token)))
	p, err := carav1.NewProjectServiceClient(admin).CreateProject(ctx, &carav1.CreateProjectRequest{Project: &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: name},
		Spec: &carav1.ProjectSpec{
			Services: []*carav1.Service{{Name: "web", Image: "web:1"}},
			Ingress:  []*carav1.Ingress{{Name: "web", Host: name + ".test", Target: &carav1.IngressTarget{Service: "web", Port: 80}}},
		},
	}})
	must(t, err)
	loop, err := c.Client("scheduler")
	must(t, err)
	p, err = carav1.NewProjectServiceClient(loop).ScheduleProject(t.Context(), &carav1.ScheduleProjectRequest{
		Name: name, Action: "Bind", NodeRef: node, ResourceVersion: p.GetMetadata().GetResourceVersion(),
	})
	must(t, err)
	return p
}

// honest runs the ingress of a node that follows the rules, and returns where clients reach it.
func (c *cluster) honest(t *testing.T, node string) (who *join.Credentials, addr string) {
	t.Helper()
	who, conn := c.joined(t, node)
	in := ingress.New(ingress.Config{
		Node: node, Logger: slog.New(slog.DiscardHandler), Peers: who.Peers(), Limits: ingress.Limits{Hold: time.Second},
		Endpoint: func(string, string) (string, func(), bool) { return "", nil, false },
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx, ingress.Listeners{Internal: l}) }()
	t.Cleanup(func() {
		stop()
		must(t, <-done)
	})
	connect(t, conn, l.Addr().String(), in.Apply)
	return who, l.Addr().String()
}

// ask sends a request with a secret through an ingress, until its routes know the host and its node.
func ask(t *testing.T, addr, host string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(5 * time.Millisecond) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/api/v1/info", nil)
		must(t, err)
		req.Host = host
		req.Header.Set("Authorization", "Bearer s3cret")
		resp, err := client.Do(req)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, errors.Join(err, resp.Body.Close()))
		if resp.StatusCode != http.StatusNotFound && !strings.Contains(string(body), "is not ready") {
			return resp.StatusCode, string(body)
		}
		if time.Now().After(deadline) {
			t.Fatalf("the ingress never heard where %s leads", host)
		}
	}
}

// TestALyingNodesAddress: whatever a node reports as its address, the agents of others send no request there: to the
// server's own port, to a machine such as a metadata service, to another agent, to the one that asks.
func TestALyingNodesAddress(t *testing.T) {
	c := newCluster(t)
	_, addr := c.honest(t, "n1")
	_, third := c.honest(t, "n3")
	tape, machine := record(t)
	for name, address := range map[string]string{"api": c.addr, "metadata": machine, "another": third, "itself": addr} {
		_, conn := c.joined(t, "liar-"+name)
		connect(t, conn, address, func(*carav1.Routes) {})
		c.place(t, name, "liar-"+name)
		status, body := ask(t, addr, name+".test")
		if status != http.StatusServiceUnavailable || !strings.Contains(body, fmt.Sprintf("runs on node %q, which cannot be reached", "liar-"+name)) {
			t.Errorf("%s: got %d %q, want a 503 that names the node", name, status, body)
		}
	}
	if seen := tape(); len(seen) == 0 || bytes.Contains(seen, []byte("s3cret")) || bytes.Contains(seen, []byte("HTTP")) {
		t.Errorf("the machine was sent %q, want a TLS greeting and nothing else", seen)
	}
}

// record is a machine that is no agent: it keeps what it is sent, and says that all is well.
func record(t *testing.T) (seen func() []byte, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var mu sync.Mutex
	var tape []byte
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				buf := make([]byte, 4096)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					mu.Lock()
					tape = append(tape, buf[:n]...)
					mu.Unlock()
					fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\ncredentials")
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return func() []byte {
		mu.Lock()
		defer mu.Unlock()
		return bytes.Clone(tape)
	}, l.Addr().String()
}

// TestALyingNodeSpeaksForNobodyElse: it cannot report on, release, read or delete what another node runs, nor be that
// node, and a flood of its heartbeats changes nothing about the others.
func TestALyingNodeSpeaksForNobodyElse(t *testing.T) {
	c := newCluster(t)
	_, good := c.joined(t, "n1")
	connect(t, good, "127.0.0.1:1", func(*carav1.Routes) {})
	p := c.place(t, "shop", "n1")
	_, conn := c.joined(t, "liar")
	stream := connect(t, conn, "127.0.0.1:1", func(*carav1.Routes) {})
	projects, nodes := carav1.NewProjectServiceClient(conn), carav1.NewNodeServiceClient(conn)
	ctx := t.Context()
	for what, call := range map[string]func() error{
		"report on another's project": func() error {
			_, err := projects.UpdateProjectStatus(ctx, &carav1.UpdateProjectStatusRequest{
				Name: "shop", Uid: p.GetMetadata().GetUid(), Epoch: p.GetStatus().GetEpoch(), ObservedGeneration: p.GetMetadata().GetGeneration(), Phase: api.PhaseFailed,
			})
			return err
		},
		"speak for another node": func() error {
			_, err := nodes.Heartbeat(ctx, &carav1.HeartbeatRequest{Name: "n1", Heartbeat: &carav1.Heartbeat{Info: &carav1.NodeInfo{IngressAddress: "127.0.0.1:2"}}})
			return err
		},
		"read a project": func() error { _, err := projects.GetProject(ctx, &carav1.GetRequest{Name: "shop"}); return err },
		"delete a project": func() error {
			_, err := projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: "shop"})
			return err
		},
		"schedule a project": func() error {
			_, err := projects.ScheduleProject(ctx, &carav1.ScheduleProjectRequest{Name: "shop", Action: "Move", NodeRef: "liar"})
			return err
		},
		"give up another node": func() error {
			_, err := nodes.MarkNodeNotReady(ctx, &carav1.MarkNodeNotReadyRequest{Name: "n1"})
			return err
		},
		"drain another node": func() error {
			_, err := nodes.PutNode(ctx, &carav1.PutNodeRequest{Node: &carav1.Node{
				ApiVersion: api.APIVersion, Kind: api.KindNode, Metadata: &carav1.ObjectMeta{Name: "n1"}, Spec: &carav1.NodeSpec{Draining: true},
			}})
			return err
		},
	} {
		if err := call(); api.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v, want PermissionDenied", what, err)
		}
	}
	for range 1000 {
		err := stream.Send(&carav1.ConnectRequest{
			Heartbeat: &carav1.Heartbeat{},
			Released:  []*carav1.Released{{Name: "shop", Uid: p.GetMetadata().GetUid(), Epoch: p.GetStatus().GetEpoch()}},
		})
		if err != nil {
			break // it was cut off, which is as good
		}
	}
	loop, err := c.Client("scheduler")
	must(t, err)
	n, err := carav1.NewNodeServiceClient(loop).GetNode(ctx, &carav1.GetRequest{Name: "n1"})
	if err != nil || n.GetStatus().GetState() != api.NodeReady || n.GetStatus().GetInfo().GetIngressAddress() != "127.0.0.1:1" {
		t.Errorf("the honest node is %v (%v)", n.GetStatus(), err)
	}
	after, err := carav1.NewProjectServiceClient(loop).GetProject(ctx, &carav1.GetRequest{Name: "shop"})
	if err != nil || after.GetMetadata().GetResourceVersion() != p.GetMetadata().GetResourceVersion() {
		t.Errorf("the project has changed: %v (%v)", after, err)
	}
}
