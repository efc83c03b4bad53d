package ports

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caravanserai/cara/agent/peer"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience only ends a test that hangs.
const patience = 3 * time.Minute

// endpoints are the services of a node that may receive connections, by name.
type endpoints struct {
	mu      sync.Mutex
	ips     map[string]string
	changed chan struct{}
	held    int
}

func (e *endpoints) acquire(_, service string) (string, func(), bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ip, ok := e.ips[service]
	if ok {
		e.held++
	}
	return ip, sync.OnceFunc(func() { e.mu.Lock(); defer e.mu.Unlock(); e.held-- }), ok
}

func (e *endpoints) changes() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

func (e *endpoints) drop(service string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.ips, service)
}

func (e *endpoints) set(service, ip string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ips[service] = ip
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *endpoints) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.held
}

// node is an agent's Ports that run, with the listener for other agents.
type node struct {
	*Ports
	endpoints *endpoints
	peers     string       // address for other agents
	served    atomic.Int64 // connections of other agents
	stop      func()
}

// cluster returns a function that starts agents of one cluster.
func cluster(t testing.TB) func(name string, change func(*Config)) *node {
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	return func(name string, change func(*Config)) *node {
		t.Helper()
		certificate, err := ca.Node(name)
		if err != nil {
			t.Fatal(err)
		}
		n := &node{endpoints: &endpoints{ips: map[string]string{}, changed: make(chan struct{})}}
		cfg := Config{
			Node: name, Endpoint: n.endpoints.acquire, Endpoints: n.endpoints.changes, Logger: slog.New(slog.DiscardHandler),
			Offer: &carav1.PortOffer{Ports: []string{"1-65535"}, InternalAddress: "127.0.0.1"},
			Peers: &peer.TLS{Identity: func() (tls.Certificate, *x509.CertPool) { return certificate, ca.Pool() }},
			// The tests wait for conditions; these only keep a retry short.
			Limits: Limits{Retry: 50 * time.Millisecond, Hold: patience},
		}
		if change != nil {
			change(&cfg)
		}
		n.Ports = New(cfg)
		n.run(t)
		return n
	}
}

func (n *node) run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var all sync.WaitGroup
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.peers = l.Addr().String()
	all.Go(func() { _ = n.Run(ctx) })
	all.Go(func() {
		config := n.cfg.Peers.Accept()
		config.NextProtos = []string{peer.PortProtocol}
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				secured := tls.Server(conn, config)
				defer secured.Close()
				if secured.HandshakeContext(ctx) == nil {
					n.served.Add(1)
					state := secured.ConnectionState()
					n.Serve(ctx, n.cfg.Peers.Node(&state), secured)
				}
			})
		}
	})
	n.stop = sync.OnceFunc(func() { cancel(); _ = l.Close(); all.Wait() })
	t.Cleanup(n.stop)
}

// service is a TCP server in the place of a container.
func service(t testing.TB, handle func(*net.TCPConn)) (port int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { handle(conn.(*net.TCPConn)); _ = conn.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return int32(l.Addr().(*net.TCPAddr).Port)
}

func echo(conn *net.TCPConn) { _, _ = io.Copy(conn, conn) }

func freePort(t testing.TB) int32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return int32(l.Addr().(*net.TCPAddr).Port)
}

// claim is the port of project p, which leads to the service web.
func claim(port, target int32, at *carav1.ProjectPorts, allow ...string) *carav1.Routes {
	at.Project = "p"
	at.Ports = []*carav1.ProjectPort{{
		Name: "web", Protocol: api.ProtocolTCP, Port: port, Scope: api.ScopeInternal, Allow: allow,
		Target: &carav1.IngressTarget{Service: "web", Port: target},
	}}
	return &carav1.Routes{Full: true, Ports: []*carav1.ProjectPorts{at}}
}

// waitFor waits until the report has exactly these ports, each as `PORT: part of its problem`.
func (n *node) waitFor(t testing.TB, want ...string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		var got []string
		for _, p := range n.Report().GetPorts() {
			got = append(got, fmt.Sprintf("%d: %s", p.GetPort(), p.GetProblem()))
		}
		same := len(got) == len(want)
		for i := 0; same && i < len(got); i++ {
			same = strings.HasPrefix(got[i], want[i]) && (strings.HasSuffix(want[i], ": ") == (got[i] == want[i]))
		}
		if same {
			return
		}
		select {
		case <-n.Changes():
		case <-deadline:
			t.Fatalf("the ports are %q, want %q", got, want)
		}
	}
}

func open(port int32) string { return fmt.Sprintf("%d: ", port) }

func dial(t testing.TB, port int32) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// pair starts two agents. A service with this behaviour runs on n2; the port is open on n1.
func pair(t testing.TB, change func(*Config), handle func(*net.TCPConn)) (first, second *node, port int32) {
	t.Helper()
	start := cluster(t)
	second = start("n2", func(c *Config) {
		if change != nil {
			change(c)
		}
		c.Offer = &carav1.PortOffer{}
	})
	first = start("n1", change)
	target := service(t, handle)
	port = freePort(t)
	second.endpoints.set("web", "127.0.0.1")
	second.Apply(claim(port, target, &carav1.ProjectPorts{Node: "n2"}))
	first.Apply(claim(port, target, &carav1.ProjectPorts{Node: "n2", IngressAddress: second.peers}))
	first.waitFor(t, open(port))
	return first, second, port
}

// alone starts one agent that runs the service and opens the port.
func alone(t testing.TB, change func(*Config), handle func(*net.TCPConn)) (n *node, port int32) {
	t.Helper()
	n = cluster(t)("n1", change)
	target := service(t, handle)
	port = freePort(t)
	n.endpoints.set("web", "127.0.0.1")
	n.Apply(claim(port, target, &carav1.ProjectPorts{Node: "n1"}))
	n.waitFor(t, open(port))
	return n, port
}

// both runs a test with a local service and with one behind another agent.
func both(t *testing.T, change func(*Config), handle func(*net.TCPConn), test func(t *testing.T, port int32)) {
	t.Run("local", func(t *testing.T) {
		n, port := alone(t, change, handle)
		test(t, port)
		n.stop()
		if held := n.endpoints.count(); held != 0 {
			t.Errorf("%d endpoints are still held", held)
		}
	})
	t.Run("other node", func(t *testing.T) {
		first, second, port := pair(t, change, handle)
		test(t, port)
		first.stop()
		second.stop()
		if held := second.endpoints.count(); held != 0 {
			t.Errorf("%d endpoints are still held", held)
		}
	})
}

// TestBothWays: a megabyte in each direction, and the end of one direction leaves the other one open.
func TestBothWays(t *testing.T) {
	both(t, nil, echo, func(t *testing.T, port int32) {
		conn := dial(t, port)
		sent := make([]byte, 1<<20)
		_, _ = rand.Read(sent)
		failed := make(chan error, 1)
		go func() {
			_, err := conn.Write(sent)
			failed <- errors.Join(err, conn.CloseWrite())
		}()
		got, err := io.ReadAll(conn)
		if err = errors.Join(err, <-failed); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes came back of %d: %v", len(got), len(sent), err)
		}
	})
}

// TestTheServiceEndsFirst: the client may go on sending after the service has ended its direction.
func TestTheServiceEndsFirst(t *testing.T) {
	heard := make(chan string, 1)
	both(t, nil, func(conn *net.TCPConn) {
		_, _ = conn.Write([]byte("hello"))
		_ = conn.CloseWrite()
		all, _ := io.ReadAll(conn)
		heard <- string(all)
	}, func(t *testing.T, port int32) {
		conn := dial(t, port)
		if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
			t.Fatalf("got %q, %v", got, err)
		}
		if _, err := conn.Write([]byte("after")); err != nil {
			t.Fatal(err)
		}
		_ = conn.CloseWrite()
		if got := <-heard; got != "after" {
			t.Errorf("the service heard %q", got)
		}
	})
}

// TestAResetIsNoEnd: a client must not take a part of the data for all of it.
func TestAResetIsNoEnd(t *testing.T) {
	both(t, nil, func(conn *net.TCPConn) {
		_, _ = conn.Write([]byte("half"))
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.SetLinger(0)
	}, func(t *testing.T, port int32) {
		conn := dial(t, port)
		half := make([]byte, 4)
		if _, err := io.ReadFull(conn, half); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(half); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %d bytes and %v, want a reset", n, err)
		}
	})
}

// TestIdle: a connection without data ends.
func TestIdle(t *testing.T) {
	both(t, func(c *Config) { c.Limits.Idle = 20 * time.Millisecond }, echo, func(t *testing.T, port int32) {
		if n, err := dial(t, port).Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %d bytes and %v, want a reset", n, err)
		}
	})
}

// TestAConnectionWaitsForItsService instead of being refused.
func TestAConnectionWaitsForItsService(t *testing.T) {
	first, second, port := pair(t, nil, echo)
	second.endpoints.drop("web")
	conn := dial(t, port)
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	second.endpoints.set("web", "127.0.0.1")
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	first.stop()
}

// TestATakenPort is a problem in the report, and is opened once it is free. A port that is not offered is never opened.
func TestATakenPort(t *testing.T) {
	other, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := int32(other.Addr().(*net.TCPAddr).Port)
	n := cluster(t)("n1", func(c *Config) { c.Offer.Ports = []string{strconv.Itoa(int(port))} })
	target := service(t, echo)
	n.endpoints.set("web", "127.0.0.1")
	all := claim(port, target, &carav1.ProjectPorts{Node: "n1"})
	all.Ports[0].Ports = append(all.Ports[0].Ports, &carav1.ProjectPort{Name: "other", Port: port%60000 + 1, Target: all.Ports[0].Ports[0].Target})
	n.Apply(all)
	n.waitFor(t, fmt.Sprintf("%d: another program on the machine uses 127.0.0.1:%d", port, port))
	_ = other.Close()
	n.waitFor(t, open(port))
	n.Apply(&carav1.Routes{Ports: []*carav1.ProjectPorts{{Project: "p"}}})
	n.waitFor(t)
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatalf("the port is still in use: %v", err)
	}
	_ = l.Close()
}

// TestRestart: an agent that cannot reach the server opens the ports that it had.
func TestRestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ports.json")
	n, port := alone(t, func(c *Config) { c.File = file }, echo)
	n.stop()
	again := &node{Ports: New(n.cfg), endpoints: n.endpoints}
	again.run(t)
	again.waitFor(t, open(port))
	conn := dial(t, port)
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// FuzzHello: no first message of another agent does harm.
func FuzzHello(f *testing.F) {
	f.Add([]byte{0, 0})
	f.Add([]byte{255, 255, 1})
	f.Add([]byte{0, 5, 10, 3, 'T', 'C', 'P'})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := net.Pipe()
		defer b.Close()
		go func() { _, _ = a.Write(data); _ = a.Close() }()
		if hello, err := readHello(b); (hello == nil) == (err == nil) {
			t.Errorf("got %v and %v", hello, err)
		}
	})
}
