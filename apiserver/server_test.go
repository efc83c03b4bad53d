package apiserver

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/pebble"
)

func TestStateOutlivesTheServer(t *testing.T) {
	st, err := pebble.Open(pebble.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	first := newHouse(t, func(c *Config) { c.Store = st })
	fillWith(t, first, web("shop"))
	want, _ := state.Get[*carav1.Project](first.db.Cache, "shop")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	second := newHouse(t, func(c *Config) { c.Store = st })
	got, ok := state.Get[*carav1.Project](second.db.Cache, "shop")
	if !ok || !proto.Equal(want, got) {
		t.Errorf("got %v, want %v", got, want)
	}
	// a watcher of the first server goes on at the second, over the store's log
	stream := open(t.Context(), t, second, "0")
	seen := false
	for !seen {
		msg, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		seen = len(msg.GetChanges()) > 0
	}
}

// deaf is a store whose log ends.
type deaf struct {
	store.Store
	err error
}

func (d deaf) List(context.Context, string, store.ListOptions) (store.Page, error) {
	return store.Page{}, d.err
}

func TestRunFailsWithItsStore(t *testing.T) {
	broken := errors.New("the disk is gone")
	s, err := New(Config{Store: deaf{err: broken}, Authenticator: names{}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), l); !errors.Is(err, broken) {
		t.Errorf("Run ended with %v", err)
	}
}

func TestAPanicIsAnAnswer(t *testing.T) {
	h := newHouse(t, nil)
	admin := func(context.Context) (identity.Actor, error) {
		return identity.Actor{Name: "user/admin", Role: api.RoleAdmin}, nil
	}
	_, err := h.unary(admin, store.Lease{})(t.Context(), &carav1.GetRequest{Name: "x"}, &grpc.UnaryServerInfo{FullMethod: "/cara.v1.ProjectService/GetProject"},
		func(context.Context, any) (any, error) { panic("boom") })
	testproblem.Want(t, err, codes.Internal, api.TitleInternal)
	if strings.Contains(err.Error(), "boom") {
		t.Errorf("the panic went out: %v", err)
	}
}

func TestValueOfANewerServerIsRefused(t *testing.T) {
	for name, value := range map[string][]byte{"empty": {}, "another encoding": {9, 1}, "not protobuf": {state.Encoding, 0xff}} {
		if _, err := state.Decode(&carav1.Project{}, value, 1); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no store":         {Authenticator: names{}},
		"no authenticator": {Store: deaf{}},
		"negative":         {Store: deaf{}, Authenticator: names{}, MaxBodyBytes: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestListPages(t *testing.T) {
	h := newHouse(t, nil)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		p := web(name)
		p.Metadata.Labels = map[string]string{"tier": name}
		fillWith(t, h, p)
	}
	projects := carav1.NewProjectServiceClient(h.as(t, "viewer"))
	var got []string
	token := ""
	for {
		list, err := projects.ListProjects(t.Context(), &carav1.ListProjectsRequest{Limit: 2, PageToken: token, LabelSelector: "tier notin (c)"})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list.GetItems() {
			got = append(got, p.GetMetadata().GetName())
		}
		if token = list.GetMetadata().GetNextPageToken(); token == "" {
			break
		}
	}
	if strings.Join(got, "") != "abde" {
		t.Errorf("pages have %v", got)
	}
}
