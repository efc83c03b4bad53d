package ingress

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/agent/peer"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestAcrossAgents(t *testing.T) {
	status, body := get(t, hops(t, echo("web")), "a.b", nil)
	if want := "web host=a.b for=127.0.0.1"; status != 200 || body != want {
		t.Errorf("got %d %q, want 200 %q", status, body, want)
	}
}

func TestARequestCrossesAgentsOnce(t *testing.T) {
	var calls atomic.Int32
	nodes := cluster(t)
	first, addr1 := serving(t, Config{Node: "n1", Endpoint: down, Peers: nodes("n1")})
	second, addr2 := serving(t, Config{Node: "n2", Peers: nodes("n2"), Endpoint: func(string, string) (string, func(), bool) {
		calls.Add(1)
		return "", nil, false
	}})
	// Each believes that the other has the project.
	first.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{{Host: "a.b", Project: "p", Service: "w", Port: 1, Node: "n2", IngressAddress: addr2}}})
	second.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{{Host: "a.b", Project: "p", Service: "w", Port: 1, Node: "n1", IngressAddress: addr1}}})
	if status, _ := get(t, addr1, "a.b", nil); status != 503 || calls.Load() != 1 {
		t.Errorf("got %d after %d hops, want 503 after 1", status, calls.Load())
	}
}

// recorder is a machine that is not an agent. It records and answers what it receives over TCP.
type recorder struct {
	mu   sync.Mutex
	seen bytes.Buffer
}

func record(t *testing.T) (*recorder, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					r.mu.Lock()
					r.seen.Write(buf[:n])
					r.mu.Unlock()
					fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return r, l.Addr().String()
}

// TestAnAddressThatIsNotTheNodes: if something else is at a node's address, it receives no byte of a request, and the
// response names the node. Cases: a machine that is not an agent, an agent of another node, one of another cluster, this
// agent itself, and nothing.
func TestAnAddressThatIsNotTheNodes(t *testing.T) {
	nodes, others := cluster(t), cluster(t)
	ip, port := service(t, echo("stolen"))
	tape, plain := record(t)
	_, third := serving(t, Config{Node: "n3", Endpoint: up(ip), Peers: nodes("n3")})
	_, foreign := serving(t, Config{Node: "n2", Endpoint: up(ip), Peers: others("n2")})
	first, addr := serving(t, Config{Node: "n1", Endpoint: down, Peers: nodes("n1")})
	for name, address := range map[string]string{
		"a machine that is no agent": plain, "another node's agent": third, "an agent of another cluster": foreign,
		"this agent": addr, "a closed port": "127.0.0.1:1", "no address": "", "no port": "127.0.0.1",
	} {
		t.Run(name, func(t *testing.T) {
			first.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{
				{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n2", IngressAddress: address},
			}})
			status, body := get(t, addr, "a.b", http.Header{"Authorization": {"Bearer s3cret"}})
			if status != 503 || !strings.Contains(body, `Project "p" runs on node "n2", `) || strings.Contains(body, `Service "`) {
				t.Errorf("got %d %q, want a 503 that names the node", status, body)
			}
		})
	}
	tape.mu.Lock()
	defer tape.mu.Unlock()
	if tape.seen.Len() == 0 || bytes.Contains(tape.seen.Bytes(), []byte("s3cret")) || bytes.Contains(tape.seen.Bytes(), []byte("HTTP")) {
		t.Errorf("the machine that is no agent was sent %q, want a TLS greeting and nothing else", tape.seen.String())
	}
}

// TestAConnectionIsKeptForItsNode: a node that reports another node's address gets none of the connections to that node.
func TestAConnectionIsKeptForItsNode(t *testing.T) {
	nodes := cluster(t)
	ip, port := service(t, echo("web"))
	third, addr3 := serving(t, Config{Node: "n3", Endpoint: up(ip), Peers: nodes("n3")})
	first, addr := serving(t, Config{Node: "n1", Endpoint: down, Peers: nodes("n1")})
	table := &carav1.Routes{Full: true, Upserts: []*carav1.Route{
		{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n3", IngressAddress: addr3},
		{Host: "c.d", Project: "q", Service: "w", Port: port, Node: "n2", IngressAddress: addr3},
	}}
	first.Apply(table)
	third.Apply(table)
	for host, want := range map[string]int{"a.b": 200, "c.d": 503} {
		for range 2 {
			if status, body := get(t, addr, host, nil); status != want {
				t.Errorf("%s: got %d %q, want %d", host, status, body, want)
			}
		}
	}
}

// TestOnlyAVerifiedAgentIsBelieved: headers about the client are not trusted because of an agent's address or an old header,
// or from a machine with a certificate of another cluster or without one.
func TestOnlyAVerifiedAgentIsBelieved(t *testing.T) {
	nodes, others := cluster(t), cluster(t)
	ip, port := service(t, echo("web"))
	second, addr := serving(t, Config{Node: "n2", Endpoint: up(ip), Peers: nodes("n2")})
	second.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{
		{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n2", IngressAddress: addr},
		{Host: "c.d", Project: "q", Service: "w", Port: port, Node: "n1", IngressAddress: "127.0.0.1:1"}, // at the address that all of them come from
	}})
	nobody := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
	for name, tt := range map[string]struct {
		dial func(ctx context.Context) (net.Conn, error)
		want string
	}{
		"in plaintext":       {func(context.Context) (net.Conn, error) { return net.Dial("tcp", addr) }, "web host=a.b for=127.0.0.1"},
		"a verified agent":   {overTLS(addr, nodes("n1").Dial("n2")), "web host=a.b for=6.6.6.6"},
		"of another cluster": {overTLS(addr, loose(others("n1"))), ""},
		"no certificate":     {overTLS(addr, nobody), ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := tt.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\nX-Forwarded-For: 6.6.6.6\r\nX-Cara-Ingress-Hop: n1\r\n\r\n")
			answer, _ := io.ReadAll(c)
			if tt.want == "" && len(answer) > 0 || !strings.HasSuffix(string(answer), tt.want) {
				t.Errorf("got %q, want %q", answer, tt.want)
			}
		})
	}
}

func overTLS(addr string, config *tls.Config) func(ctx context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	}
}

// loose presents an identity without verifying the other end.
func loose(p *peer.TLS) *tls.Config {
	config := p.Dial("n2")
	config.VerifyConnection = nil
	return config
}

// TestAnotherNodeThatDoesNotAnswer: the response names the node, not its service.
func TestAnotherNodeThatDoesNotAnswer(t *testing.T) {
	nodes := cluster(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", nodes("n2").Accept())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096)) // the request, or as much as there is
			_ = c.Close()
		}
	}()
	first, addr := serving(t, Config{Node: "n1", Endpoint: down, Peers: nodes("n1")})
	first.Apply(&carav1.Routes{Full: true, Upserts: []*carav1.Route{{Host: "a.b", Project: "p", Service: "w", Port: 1, Node: "n2", IngressAddress: l.Addr().String()}}})
	if status, body := get(t, addr, "a.b", nil); status != 502 || !strings.Contains(body, `Node "n2", which runs project "p", did not answer.`) {
		t.Errorf("got %d %q, want a 502 that names the node", status, body)
	}
}

// A node whose certificate the server does not accept is neither contacted nor trusted. That survives a restart.
func TestADeletedNodeIsNoPeer(t *testing.T) {
	nodes := cluster(t)
	member := func(node string) *peer.TLS {
		own := nodes(node)
		own.Members = new(peer.Members)
		return own
	}
	always := func(node string) *carav1.Peer {
		return &carav1.Peer{Node: node, NotBefore: timestamppb.New(time.Unix(0, 0))}
	}
	ip, port := service(t, echo("web"))
	file := filepath.Join(t.TempDir(), "routes.json")
	first, addr := serving(t, Config{Node: "n1", Endpoint: down, Peers: member("n1"), File: file})
	second, there := serving(t, Config{Node: "n2", Endpoint: up(ip), Peers: member("n2")})
	route := []*carav1.Route{{Host: "a.b", Project: "p", Service: "w", Port: port, Node: "n2", IngressAddress: there}}
	for _, step := range []struct {
		name          string
		first, second *carav1.Routes
		want          int
	}{
		{"n2 was deleted", &carav1.Routes{Full: true, Upserts: route, Peers: []*carav1.Peer{always("n1")}}, &carav1.Routes{Full: true, Upserts: route}, 503},
		{"n1 was deleted, n2 says", &carav1.Routes{Peers: []*carav1.Peer{always("n2")}}, &carav1.Routes{Peers: []*carav1.Peer{always("n2")}}, 502}, // n2 hangs up
		{"both are members", &carav1.Routes{}, &carav1.Routes{Peers: []*carav1.Peer{always("n1")}}, 200},
		{"a new connection, no peer has changed", &carav1.Routes{Full: true, KeepPeers: true, Upserts: route}, &carav1.Routes{Full: true, KeepPeers: true, Upserts: route}, 200},
	} {
		first.Apply(step.first)
		second.Apply(step.second)
		if status, body := get(t, addr, "a.b", nil); status != step.want {
			t.Errorf("%s: got %d %q, want %d", step.name, status, body, step.want)
		}
	}
	if both := (api.PeersDigest{}); !bytes.Equal(first.PeersDigest(), second.PeersDigest()) || bytes.Equal(first.PeersDigest(), both[:]) {
		t.Errorf("agents with the same peers say %x and %x", first.PeersDigest(), second.PeersDigest())
	}
	first.Apply(&carav1.Routes{RemovedPeers: []string{"n2"}})
	if bytes.Equal(first.PeersDigest(), second.PeersDigest()) {
		t.Error("agents with other peers say the same")
	}
	second.Apply(&carav1.Routes{Full: true, KeepPeers: true, RemovedPeers: []string{"n1"}})
	if kept := slices.Sorted(maps.Keys(second.table.Load().peers)); !slices.Equal(kept, []string{"n2"}) {
		t.Errorf("after a new connection that removes n1, the peers are %q", kept)
	}
	storeRoutes(t, first)
	again := New(Config{Node: "n1", Logger: slog.New(slog.DiscardHandler), Peers: member("n1"), File: file})
	again.restore()
	if kept := slices.Sorted(maps.Keys(again.table.Load().peers)); !slices.Equal(kept, []string{"n1"}) {
		t.Errorf("after a restart the peers are %q, want n1 alone", kept)
	}
}
