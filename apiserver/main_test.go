package apiserver

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store/pebble"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names is an authenticator that trusts the caller: `Bearer ROLE:NAME[:PREFIX]`.
type names struct{}

func (names) Authenticate(ctx context.Context) (identity.Actor, error) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(values) == 0 {
		return identity.Actor{}, nil
	}
	actor, ok := callers[values[0]]
	if !ok {
		return identity.Actor{}, api.Unauthenticated("unknown token")
	}
	return actor, nil
}

var callers = map[string]identity.Actor{
	"Bearer admin":    {Name: "user/admin", Role: api.RoleAdmin},
	"Bearer ci":       {Name: "user/ci", Role: api.RoleDeployer, NamePrefixes: []string{"pr-"}},
	"Bearer viewer":   {Name: "user/viewer", Role: api.RoleViewer},
	"Bearer n1":       {Name: "node/n1", Role: api.RoleNode},
	"Bearer n2":       {Name: "node/n2", Role: api.RoleNode},
	"Bearer impostor": {Name: "system/gc", Role: api.RoleGC},
}

// haveSource creates a source with defaults, unless it exists.
func (h *house) haveSource(t testing.TB, name string) {
	t.Helper()
	err := h.db.Transact(t.Context(), func(x *state.Tx) error {
		if _, ok := state.Read[*carav1.Source](x, name); !ok {
			x.Put(&carav1.Source{
				ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: name, Uid: state.NewUID(), Generation: 1},
				Spec: &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}}, Status: &carav1.SourceStatus{},
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// house is a server on a real listener, with its own store.
type house struct {
	*Server
	addr string
	stop func() error
}

func newHouse(t testing.TB, change func(*Config)) *house {
	t.Helper()
	st, err := pebble.Open(pebble.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Store: st, Authenticator: names{}, ClusterID: "test", Version: "v0", DeleteWait: 50 * time.Millisecond,
		Hosts: api.HostTemplate{BaseDomain: "example.test", Environment: "dev"},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	h := &house{Server: s, addr: l.Addr().String()}
	stopped := false
	h.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Errorf("run: %v", err)
		}
		if err := st.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	<-s.db.Cache.Loaded
	return h
}

// as is a gRPC connection over the network with a token.
func (h *house) as(t testing.TB, token string) grpc.ClientConnInterface {
	t.Helper()
	conn, err := grpc.NewClient(h.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(bearer(token)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}
func (bearer) RequireTransportSecurity() bool { return false }

// loop is the connection of a loop.
func (h *house) loop(t testing.TB, name string) grpc.ClientConnInterface {
	t.Helper()
	conn, err := h.Client(name)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func web(name string) *carav1.Project {
	return &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject,
		Metadata: &carav1.ObjectMeta{Name: name},
		Spec:     &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: "nginx:1"}}},
	}
}
