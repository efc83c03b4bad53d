package cli

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/oidc"
	"github.com/caravanserai/cara/store/pebble"
)

// testServer is the real server on a real listener, with a real store and a test clock. It has no loops: a test makes the
// decisions of the scheduler and the reports of nodes.
type testServer struct {
	*apiserver.Server
	url, address, dir string
	clock             *clock
	log               *shown
	stop              func() error // ends the server, once
	close             func() error // ends what is left
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

// now is later at each call, so that effects are younger than their causes.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(time.Microsecond)
	return c.at
}

// text is a time after everything so far, for a fixed clock.
func (c *clock) text() string { return c.now().Add(time.Second).Format(time.RFC3339) }

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// open starts a server over dir. The caller closes it.
func open(dir string) (*testServer, error) { return openAt(dir, "127.0.0.1:0", nil) }

// openAt is open on an address, with logins at a provider. The provider has the time of the machine.
func openAt(dir, address string, openID *oidc.Config) (*testServer, error) {
	h := &testServer{dir: dir, clock: &clock{at: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}, log: &shown{}}
	if openID != nil {
		h.clock.at = time.Now()
	}
	st, err := pebble.Open(pebble.Config{Dir: filepath.Join(dir, "store")})
	if err != nil {
		return nil, err
	}
	id, err := identity.Open(identity.Config{DataDir: dir})
	if err != nil {
		return nil, err
	}
	h.Server, err = apiserver.New(apiserver.Config{
		Store: st, Identity: id, Version: "v2", Now: h.clock.now, DeleteWait: 50 * time.Millisecond,
		OpenID: openID, Logger: slog.New(slog.NewTextHandler(h.log, nil)),
		Hosts: api.HostTemplate{BaseDomain: "example.test", Environment: "dev"},
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := h.FirstStart(ctx); err != nil {
		cancel()
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		cancel()
		return nil, err
	}
	h.address = l.Addr().String()
	h.url = "http://" + h.address
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, identity.NewListener(l, id.TLSConfig())) }()
	h.stop = sync.OnceValue(func() error { cancel(); return <-done })
	h.close = func() error { return errors.Join(h.stop(), st.Close()) }
	return h, nil
}

func newTestServer(t *testing.T) *testServer {
	t.Helper()
	h, err := open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *testServer) tokenFile() string { return filepath.Join(h.dir, identity.AdminTokenFile) }

// shown is what a program has written so far.
type shown struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *shown) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// result is how a command ended.
type result struct {
	out, err string
	code     int
}

// ctl runs caractrl in this process, as the administrator.
func (h *testServer) ctl(ctx context.Context, stdin string, args ...string) result {
	var out, errs bytes.Buffer
	a := &app{Streams: Streams{In: strings.NewReader(stdin), Out: &out, Err: &errs}, version: "v1", now: h.clock.now}
	code := run(ctx, append([]string{"--server", h.url, "--token-file", h.tokenFile()}, args...), a)
	return result{out.String(), errs.String(), code}
}
