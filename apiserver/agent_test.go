package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	tlscreds "google.golang.org/grpc/credentials"

	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/dispatch"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store/pebble"
)

// cluster is a server with an identity, behind a real TLS listener, over a store on disk.
type cluster struct {
	*Server
	id   *identity.Identity
	addr string
	dir  string
	log  *logBuffer
	stop func()
}

// logBuffer keeps everything that the server logs, at every level.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newCluster(t *testing.T, change func(*Config)) *cluster {
	return openCluster(t, t.TempDir(), change)
}

func openCluster(t *testing.T, dir string, change func(*Config)) *cluster {
	t.Helper()
	id, err := identity.Open(identity.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	st, err := pebble.Open(pebble.Config{Dir: filepath.Join(dir, "store")})
	if err != nil {
		t.Fatal(err)
	}
	logs := &logBuffer{}
	cfg := Config{
		Store: st, Identity: id, Logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Hosts: api.HostTemplate{BaseDomain: "example.test", Environment: "dev"}, DrainTimeout: 5 * time.Second,
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, identity.NewListener(distance{inner}, id.TLSConfig())) }()
	c := &cluster{Server: s, id: id, addr: inner.Addr().String(), dir: dir, log: logs}
	c.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := st.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(c.stop)
	<-s.db.Cache.Loaded
	return c
}

// file reads a token file of the data directory.
func (c *cluster) file(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// dial opens a TLS connection, with a bearer token unless it is empty.
func (c *cluster) dial(t *testing.T, token string) grpc.ClientConnInterface {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.id.CAPEM())
	options := []grpc.DialOption{grpc.WithTransportCredentials(tlscreds.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}))}
	if token != "" {
		options = append(options, grpc.WithPerRPCCredentials(rawBearer(token)))
	}
	conn, err := grpc.NewClient(c.addr, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

type rawBearer string

func (b rawBearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}
func (rawBearer) RequireTransportSecurity() bool { return true }

func (c *cluster) admin(t *testing.T) grpc.ClientConnInterface {
	t.Helper()
	return c.dial(t, c.file(t, identity.AdminTokenFile))
}

// joinConfig returns the configuration of an agent that joins with the token of the first start.
func (c *cluster) joinConfig(t *testing.T, node string) join.Config {
	t.Helper()
	return join.Config{Server: "http://" + c.addr, Token: c.file(t, identity.JoinTokenFile), NodeName: node, DataDir: t.TempDir()}
}

// node is a joined node's connection.
func (c *cluster) node(t *testing.T, node string) *grpc.ClientConn {
	t.Helper()
	creds, err := join.Join(t.Context(), c.joinConfig(t, node))
	if err != nil {
		t.Fatal(err)
	}
	return dialAs(t, creds)
}

func dialAs(t *testing.T, creds *join.Credentials) *grpc.ClientConn {
	t.Helper()
	conn, err := creds.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// fakeAgent is an agent's side of Connect. It records what it receives.
type fakeAgent struct {
	passed []*carav1.Routes // received before the expected assignment
	t      *testing.T
	conn   *grpc.ClientConn
	stream carav1.NodeService_ConnectClient
	got    chan *carav1.ConnectResponse
	failed chan error
}

func connectAgent(t *testing.T, conn *grpc.ClientConn, instance string) *fakeAgent {
	t.Helper()
	return connectAgentAt(t, conn, instance, "192.0.2.1:8081")
}

// connectAgentAt is an agent that reports an ingress address, and capabilities.
func connectAgentAt(t *testing.T, conn *grpc.ClientConn, instance, address string, capabilities ...string) *fakeAgent {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := carav1.NewNodeServiceClient(conn).Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	info := &carav1.NodeInfo{
		Platform: "linux/amd64", IngressAddress: address, Capacity: &carav1.NodeCapacity{Cpu: "4", DiskFree: "10Gi"},
		Tools: map[string]string{api.ToolRsync: "3.2.7", api.ToolRestic: "0.18.0"},
	}
	if err := stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{Info: info}, InstanceId: instance, Capabilities: capabilities}); err != nil {
		t.Fatal(err)
	}
	a := &fakeAgent{t: t, conn: conn, stream: stream, got: make(chan *carav1.ConnectResponse, 1000), failed: make(chan error, 1)}
	go a.read()
	return a
}

// read receives messages until the stream ends.
func (a *fakeAgent) read() {
	for {
		m, err := a.stream.Recv()
		if err != nil {
			a.failed <- err
			return
		}
		a.got <- m
	}
}

// next returns the next message from the server.
func (a *fakeAgent) next() *carav1.ConnectResponse {
	a.t.Helper()
	select {
	case m := <-a.got:
		return m
	case err := <-a.failed:
		select {
		case m := <-a.got: // it came before the end
			a.failed <- err
			return m
		default:
			a.t.Fatalf("the stream ended: %v", err)
		}
	case <-time.After(60 * time.Second):
		a.t.Fatal("nothing came from the server")
	}
	return nil
}

// ended returns why the server ended the stream.
func (a *fakeAgent) ended() error {
	a.t.Helper()
	for {
		select {
		case <-a.got:
		case err := <-a.failed:
			return err
		case <-time.After(60 * time.Second):
			a.t.Fatal("the server did not end the stream")
		}
	}
}

// synced returns everything up to Synced.
func (a *fakeAgent) synced() (assigned []*carav1.Assignment, routes *carav1.Routes) {
	a.t.Helper()
	return a.syncedAfter(func(u *carav1.Unassigned) { a.t.Fatalf("unassigned %v", u) })
}

// syncedAfter is synced for a node with projects that are unassigned.
func (a *fakeAgent) syncedAfter(unassigned func(*carav1.Unassigned)) (assigned []*carav1.Assignment, routes *carav1.Routes) {
	a.t.Helper()
	if w := a.next().GetWelcome(); w.GetClusterId() == "" || w.GetHeartbeatInterval().AsDuration() != dispatch.HeartbeatInterval {
		a.t.Fatalf("the first message is no welcome: %v", w)
	}
	for {
		switch m := a.next().GetMessage().(type) {
		case *carav1.ConnectResponse_Assignment:
			assigned = append(assigned, m.Assignment)
		case *carav1.ConnectResponse_Routes:
			routes = m.Routes
		case *carav1.ConnectResponse_Unassigned:
			unassigned(m.Unassigned)
		case *carav1.ConnectResponse_Synced:
			return assigned, routes
		default:
			a.t.Fatalf("unexpected message %v", m)
		}
	}
}

// assignment returns the next assignment; routes may come in between.
func (a *fakeAgent) assignment() *carav1.Assignment {
	a.t.Helper()
	for {
		switch m := a.next().GetMessage().(type) {
		case *carav1.ConnectResponse_Assignment:
			return m.Assignment
		case *carav1.ConnectResponse_Routes:
			a.passed = append(a.passed, m.Routes)
		default:
			a.t.Fatalf("unexpected message %v", m)
		}
	}
}

// routes returns the next change of the routes that holds; assignments may come in between.
func (a *fakeAgent) routes(holds func(*carav1.Routes) bool) *carav1.Routes {
	a.t.Helper()
	for len(a.passed) > 0 {
		m := a.passed[0]
		a.passed = a.passed[1:]
		if holds(m) {
			return m
		}
	}
	for {
		if m := a.next().GetRoutes(); m != nil && holds(m) {
			return m
		}
	}
}

// bind places a project as the scheduler would.
func (c *cluster) bind(t *testing.T, project, node string) *carav1.Project {
	t.Helper()
	p, ok := state.Get[*carav1.Project](c.db.Cache, project)
	if !ok {
		t.Fatalf("there is no project %s", project)
	}
	loop, err := c.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	p, err = carav1.NewProjectServiceClient(loop).ScheduleProject(t.Context(), &carav1.ScheduleProjectRequest{
		Name: project, ResourceVersion: p.GetMetadata().GetResourceVersion(), Action: "Bind", NodeRef: node,
		Reason: "Bound", Message: "placed on " + node,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (c *cluster) create(t *testing.T, p *carav1.Project) {
	t.Helper()
	if _, err := carav1.NewProjectServiceClient(c.admin(t)).CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: p}); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) secret(t *testing.T, name, typ string, values map[string]string) {
	t.Helper()
	_, err := carav1.NewSecretServiceClient(c.admin(t)).PutSecret(t.Context(), &carav1.PutSecretRequest{Secret: &carav1.Secret{
		ApiVersion: api.APIVersion, Kind: api.KindSecret, Metadata: &carav1.ObjectMeta{Name: name}, Type: typ, StringData: values,
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s did not come", what)
		}
	}
}
