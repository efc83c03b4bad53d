package ui_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/oidc"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testbrowser"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/pebble"
)

// site is a server with the page, on a real listener.
type site struct {
	url, token string
	dir, addr  string
	store      store.Store
	server     *apiserver.Server
	stop       func()
	openID     *oidc.Config
	log        *logged
}

// logged is the log of a server.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newSite(t testing.TB) *site {
	t.Helper()
	return newSiteWith(t, "127.0.0.1:0", nil)
}

// newSiteWith is newSite on an address, with logins at a provider.
func newSiteWith(t testing.TB, addr string, openID *oidc.Config) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), addr: addr, openID: openID, log: &logged{}}
	s.start(t)
	t.Cleanup(func() { s.stop() })
	token, err := os.ReadFile(filepath.Join(s.dir, identity.AdminTokenFile))
	if err != nil {
		t.Fatal(err)
	}
	s.token = strings.TrimSpace(string(token))
	return s
}

// start starts the server, or starts it again on the same address and with the same state.
func (s *site) start(t testing.TB) {
	t.Helper()
	id, err := identity.Open(identity.Config{DataDir: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	st, err := pebble.Open(pebble.Config{Dir: filepath.Join(s.dir, "store")})
	if err != nil {
		t.Fatal(err)
	}
	s.store = st
	if s.server, err = apiserver.New(apiserver.Config{
		Store: st, Identity: id, Version: "v0", DeleteWait: time.Millisecond, OpenID: s.openID, Logger: slog.New(slog.NewTextHandler(s.log, nil)),
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.server.FirstStart(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	s.url = "http://" + s.addr
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.server.Run(ctx, identity.NewListener(l, id.TLSConfig())) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := st.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

// put writes objects to the store as they are. The server has them when the call returns.
func (s *site) put(t testing.TB, objects ...proto.Message) {
	t.Helper()
	for len(objects) > 0 {
		n := min(len(objects), 100)
		var txn store.Txn
		for _, m := range objects[:n] {
			value, err := state.Encode(m)
			if err != nil {
				t.Fatal(err)
			}
			txn.Do = append(txn.Do, store.Op{Key: state.Key(state.KindName(m), api.Meta(m).GetName()), Value: value})
		}
		if _, err := s.store.Commit(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
		objects = objects[n:]
	}
}

// conn is a gRPC connection with a token.
func (s *site) conn(t testing.TB, token string) grpc.ClientConnInterface {
	t.Helper()
	c, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(bearer(token)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if b == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}
func (bearer) RequireTransportSecurity() bool { return false }

// newToken creates a token with a role.
func (s *site) newToken(t testing.TB, name, role, prefix string) string {
	t.Helper()
	made, err := carav1.NewTokenServiceClient(s.conn(t, s.token)).CreateToken(t.Context(), &carav1.CreateTokenRequest{
		Token: &carav1.Token{Metadata: &carav1.ObjectMeta{Name: name}, Role: role, NamePrefix: prefix},
	})
	if err != nil {
		t.Fatal(err)
	}
	return made.GetSecret()
}

// client is an HTTP client with cookies, which follows no redirect.
func client(t testing.TB) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// login returns an HTTP client that is logged in.
func (s *site) login(t testing.TB, token string) *http.Client {
	t.Helper()
	c := client(t)
	resp := s.post(t, c, "/ui/login", url.Values{"token": {token}}, nil)
	if resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("login: %s", resp.Status)
	}
	return c
}

func (s *site) post(t testing.TB, c *http.Client, path string, form url.Values, header http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header.Clone()
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return do(t, c, req)
}

func (s *site) get(t testing.TB, c *http.Client, path string, header http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header.Clone()
	}
	return do(t, c, req)
}

// do sends a request. The body is closed at the end of the test.
func do(t testing.TB, c *http.Client, req *http.Request) *http.Response {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// tab opens a tab that is logged in.
func (s *site) tab(t testing.TB, b *testbrowser.Browser, token string) *testbrowser.Tab {
	t.Helper()
	tab, err := b.Tab()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, problem := range tab.Problems() {
			t.Errorf("the console of the page: %s", problem)
		}
		tab.Close()
	})
	must(t, tab.Login(s.url, token))
	return tab
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// project returns a Running project.
func project(name string) *carav1.Project {
	now := timestamppb.New(time.Now().Add(-time.Hour))
	return &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject,
		Metadata: &carav1.ObjectMeta{Name: name, Uid: "uid-" + name, Generation: 1, CreationTimestamp: now, Owner: api.PrefixUser + "admin"},
		Spec:     &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "app", Image: "registry.example/app:1"}}},
		Status: &carav1.ProjectStatus{
			Phase: api.PhaseRunning, NodeRef: "n1", Epoch: 1, ObservedGeneration: 1,
			Services:   []*carav1.ServiceStatus{{Name: "app", State: api.ServiceRunning, StartedAt: now}},
			Conditions: []*carav1.Condition{{Type: api.CondReady, Status: api.StatusTrue, Reason: "AllUp", LastTransitionTime: now}},
		},
	}
}

func failed(name, reason, message string) *carav1.Project {
	p := project(name)
	p.Status.Phase = api.PhaseFailed
	p.Status.Services[0].State = api.ServiceFailed
	p.Status.Conditions = []*carav1.Condition{
		{Type: api.CondPhase, Status: api.StatusTrue, Reason: reason, Message: message, LastTransitionTime: timestamppb.Now()},
		{Type: api.CondReady, Status: api.StatusFalse, Reason: reason, Message: message, LastTransitionTime: timestamppb.Now()},
	}
	return p
}

// node returns a node that is there but not connected.
func node(name string) *carav1.Node {
	return &carav1.Node{
		ApiVersion: api.APIVersion, Kind: api.KindNode,
		Metadata: &carav1.ObjectMeta{Name: name, Uid: "uid-" + name, Generation: 1, CreationTimestamp: timestamppb.Now()},
		Spec:     &carav1.NodeSpec{}, Status: &carav1.NodeStatus{State: api.NodeReady},
	}
}

func event(name, object, reason, message string) *carav1.Event {
	return &carav1.Event{
		ApiVersion: api.APIVersion, Kind: api.KindEvent, Metadata: &carav1.ObjectMeta{Name: name},
		Type: string(api.EventNormal), Reason: reason, Message: message, Count: 1, Actor: "user/admin",
		Object:    &carav1.ObjectRef{Kind: api.KindProject, Name: object, Uid: "uid-" + object},
		FirstTime: timestamppb.Now(), LastTime: timestamppb.Now(),
	}
}

// many returns projects, every tenth of them Failed.
func many(n int) []proto.Message {
	out := make([]proto.Message, n)
	for i := range n {
		p := project(fmt.Sprintf("shop-%05d", i))
		if i%10 == 0 {
			p = failed(p.GetMetadata().GetName(), "CrashLoop", "service app exited 5 times within 10 minutes, at last with code 1")
		}
		p.Metadata.Labels = map[string]string{"team": fmt.Sprintf("t%d", i%7)}
		out[i] = p
	}
	return out
}
