package ingress

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// run serves an ingress that keeps its table in file until the returned function is called.
func run(t *testing.T, file string, up func(project, service string) (string, func(), bool)) (*Ingress, string, func()) {
	t.Helper()
	i := New(Config{Node: "n1", Endpoint: up, File: file, Logger: slog.New(slog.DiscardHandler)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx, Listeners{Internal: l}) }()
	return i, l.Addr().String(), func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// storeRoutes writes the table to its file, as at the end of Run.
func storeRoutes(t *testing.T, i *Ingress) {
	t.Helper()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	i.routesFile.Changed() // Run may have taken the last change, and store it later
	i.routesFile.Run(ended, i.routes)
}

// TestRestart: a table survives a restart, and the server's table takes precedence over the stored one.
func TestRestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.json")
	ip, port := service(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	up := func(project, service string) (string, func(), bool) {
		return ip, func() {}, project == "shop" && service == "web"
	}
	route := &carav1.Route{Host: "shop.test", Project: "shop", Service: "web", Port: port, Node: "n1"}

	i, _, stop := run(t, file, up)
	i.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{route}})
	deadline := time.Now().Add(10 * time.Second)
	for {
		if data, err := os.ReadFile(file); err == nil && strings.Contains(string(data), "shop.test") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the table is not on disk while the process runs: a kill would lose it")
		}
		<-time.After(5 * time.Millisecond)
	}
	stop()

	i, address, stop := run(t, file, up)
	awaitStatus(t, address, "shop.test", http.StatusTeapot)
	i.Apply(&carav1.Routes{Full: true})
	awaitStatus(t, address, "shop.test", http.StatusNotFound)
	stop()

	_, address, stop = run(t, file, up)
	defer stop()
	awaitStatus(t, address, "shop.test", http.StatusNotFound)
}

// TestTheServerIsFaster: the stored table does not replace one that the server has already sent.
func TestTheServerIsFaster(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.json")
	if err := os.WriteFile(file, []byte(`{"full":true,"upserts":[{"host":"old.test","project":"old"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	i := New(Config{Node: "n1", File: file, Logger: slog.New(slog.DiscardHandler)})
	i.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{{Host: "new.test", Project: "new"}}})
	i.restore()
	if hosts := i.table.Load().hosts; len(hosts) != 1 || hosts["new.test"] == nil {
		t.Errorf("the table is %v", hosts)
	}
}

func TestBrokenTable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.json")
	if err := os.WriteFile(file, []byte(`{"full":tr`), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	i := New(Config{Node: "n1", File: file, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	i.restore()
	if !strings.Contains(log.String(), "kept file not read") || len(i.table.Load().hosts) != 0 {
		t.Errorf("log %q, table %v", log.String(), i.table.Load().hosts)
	}
}

func awaitStatus(t *testing.T, address, host string, want int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for got := 0; ; {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host, req.Close = host, true
		if resp, err := http.DefaultClient.Do(req); err == nil {
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
			if got = resp.StatusCode; got == want {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s answers %d, want %d", host, got, want)
		}
		<-time.After(5 * time.Millisecond)
	}
}
