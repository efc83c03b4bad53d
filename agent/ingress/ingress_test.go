package ingress

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caravanserai/cara/agent/peer"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is a container stand-in: an HTTP server on loopback.
func service(t *testing.T, h http.HandlerFunc) (ip string, port int32) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return u.Hostname(), int32(n)
}

// agent runs one ingress and returns its address.
func agent(t *testing.T, node string, endpoint func(project, service string) (string, func(), bool)) (*Ingress, string) {
	t.Helper()
	return serving(t, Config{Node: node, Endpoint: endpoint})
}

func serving(t *testing.T, cfg Config) (*Ingress, string) {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	i := New(cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx, Listeners{Internal: l}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ingress %s: %v", cfg.Node, err)
		}
	})
	return i, l.Addr().String()
}

// one is an ingress at n1 with one host, a.b, that leads to the service of a handler.
func one(t *testing.T, cfg Config, h http.HandlerFunc) (*Ingress, string) {
	t.Helper()
	ip, port := service(t, h)
	cfg.Node, cfg.Endpoint = "n1", up(ip)
	i, addr := serving(t, cfg)
	i.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n1"}}})
	return i, addr
}

// cluster makes the identities of one cluster's nodes.
func cluster(t *testing.T) func(node string) *peer.TLS {
	t.Helper()
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	return func(node string) *peer.TLS {
		certificate, err := ca.Node(node)
		if err != nil {
			t.Fatal(err)
		}
		return &peer.TLS{Identity: func() (tls.Certificate, *x509.CertPool) { return certificate, ca.Pool() }}
	}
}

// hops are two agents, of which the second has the service: a request to the first crosses both.
func hops(t *testing.T, h http.HandlerFunc) (addr string) {
	t.Helper()
	ip, port := service(t, h)
	nodes := cluster(t)
	second, addr2 := serving(t, Config{Node: "n2", Endpoint: up(ip), Peers: nodes("n2")})
	first, addr1 := serving(t, Config{Node: "n1", Endpoint: down, Peers: nodes("n1")})
	table := &carav1.Routes{Full: true, Upserts: []*carav1.Route{
		{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n2", IngressAddress: addr2},
	}}
	first.Apply(table)
	second.Apply(table)
	return addr1
}

// raw sends bytes on a connection of their own, and returns the connection with a deadline.
func raw(t *testing.T, addr, request string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return c
}

func get(t *testing.T, addr, host string, header http.Header) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	maps.Copy(req.Header, header)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func echo(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s host=%s for=%s", name, r.Host, r.Header.Get("X-Forwarded-For"))
	}
}

func up(ip string) func(string, string) (string, func(), bool) {
	return func(string, string) (string, func(), bool) { return ip, func() {}, true }
}

func down(string, string) (string, func(), bool) { return "", nil, false }

func TestRouting(t *testing.T) {
	ip, port := service(t, echo("web"))
	closed := int32(1) // nothing listens on port 1 of loopback
	i, addr := agent(t, "n1", up(ip))
	i.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{
		{Host: "web.example.com", Project: "p", Service: "web", Port: port, Node: "n1"},
		{Host: "dead.example.com", Project: "p", Service: "dead", Port: closed, Node: "n1"},
	}})
	tests := map[string]struct {
		host   string
		status int
		body   string
	}{
		"by host":                      {"web.example.com", 200, "web host=web.example.com for=127.0.0.1"},
		"with port, case, and dot":     {"WEB.example.com.:8081", 200, "web host=WEB.example.com.:8081"},
		"unknown host":                 {"nobody.example.com", 404, `No project claims the host "nobody.example.com".`},
		"backend that does not answer": {"dead.example.com", 502, `Service "dead" of project "p" did not answer on port 1.`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			status, body := get(t, addr, tt.host, nil)
			if status != tt.status || !strings.Contains(body, tt.body) {
				t.Errorf("got %d %q, want %d %q", status, body, tt.status, tt.body)
			}
		})
	}
	i.Apply(&carav1.Routes{RemovedHosts: []string{"web.example.com"}})
	if status, _ := get(t, addr, "web.example.com", nil); status != 404 {
		t.Errorf("removed host: got %d, want 404", status)
	}
	if status, _ := get(t, addr, "dead.example.com", nil); status != 502 {
		t.Errorf("a partial change touched another host: got %d, want 502", status)
	}
}

func TestServiceThatIsNotReadyIs503(t *testing.T) {
	i, addr := agent(t, "n1", down)
	i.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{{Host: "a.b", Project: "p", Service: "web", Port: 80, Node: "n1"}}})
	status, body := get(t, addr, "a.b", nil)
	if status != 503 || !strings.Contains(body, `Service "web" of project "p" is not ready.`) {
		t.Errorf("got %d %q, want 503 and the service", status, body)
	}
}

func TestUpgradeAndStreamPass(t *testing.T) {
	both := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			fmt.Fprint(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done() // never ends: the first event must come anyway
			return
		}
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(buf, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = buf.Flush()
		line, _ := buf.ReadString('\n')
		fmt.Fprint(buf, "echo "+line)
		_ = buf.Flush()
	}
	_, addr := one(t, Config{}, both)
	across := hops(t, both)
	for name, tt := range map[string]struct{ addr, header, send, want string }{
		"upgrade":                           {addr, "Connection: Upgrade\r\nUpgrade: echo\r\n", "hello\n", "echo hello"},
		"server-sent events":                {addr, "", "", "data: 1"},
		"upgrade across agents":             {across, "Connection: Upgrade\r\nUpgrade: echo\r\n", "hello\n", "echo hello"},
		"server-sent events, across agents": {across, "", "", "data: 1"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", tt.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a.b\r\n%s\r\n", tt.header)
			r := bufio.NewReader(conn)
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					t.Fatalf("connection ended before %q: %v", tt.want, err)
				}
				switch strings.TrimSpace(line) {
				case tt.want:
					return
				case "": // the answer's header is over: only now may the client of an upgrade send
					fmt.Fprint(conn, tt.send)
				}
			}
		})
	}
}
