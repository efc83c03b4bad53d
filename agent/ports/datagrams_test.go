package ports

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// udpService is a UDP server in the place of a container. It answers each datagram with its mark and the datagram.
func udpService(t testing.TB, address, mark string) (port int32) {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(append([]byte(mark), buf[:n]...), from)
		}
	})
	t.Cleanup(func() { _ = conn.Close(); all.Wait() })
	return int32(conn.LocalAddr().(*net.UDPAddr).Port)
}

func freeUDPPort(t testing.TB) int32 {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return int32(conn.LocalAddr().(*net.UDPAddr).Port)
}

func udpClaim(port, target int32, at *carav1.ProjectPorts, allow ...string) *carav1.Routes {
	routes := claim(port, target, at, allow...)
	routes.Ports[0].Ports[0].Protocol = api.ProtocolUDP
	return routes
}

// udp makes an agent serve UDP.
func udp(change func(*Config)) func(*Config) {
	return func(c *Config) {
		c.Offer.Ports, c.Offer.Protocols = []string{"1-65535/udp"}, api.PortProtocols()
		c.Metrics = prometheus.NewRegistry()
		if change != nil {
			change(c)
		}
	}
}

// udpAlone starts one agent that runs the service and opens the port.
func udpAlone(t testing.TB, change func(*Config)) (n *node, port int32) {
	t.Helper()
	n = cluster(t)("n1", udp(change))
	target := udpService(t, "127.0.0.1:0", "")
	port = freeUDPPort(t)
	n.endpoints.set("web", "127.0.0.1")
	n.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n1"}))
	n.waitFor(t, open(port))
	return n, port
}

// udpPair starts two agents. The service runs on n2; the port is open on n1.
func udpPair(t testing.TB, change func(*Config)) (first, second *node, port, target int32) {
	t.Helper()
	start := cluster(t)
	second = start("n2", udp(func(c *Config) {
		if change != nil {
			change(c)
		}
		c.Offer = &carav1.PortOffer{Protocols: api.PortProtocols()}
	}))
	first = start("n1", udp(change))
	target = udpService(t, "127.0.0.1:0", "")
	port = freeUDPPort(t)
	second.endpoints.set("web", "127.0.0.1")
	second.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n2"}))
	first.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n2", IngressAddress: second.peers}))
	first.waitFor(t, open(port))
	return first, second, port, target
}

func udpDial(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.UDPConn)
}

func onPort(port int32) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))) }

// resend is how long a client waits for a reply before it sends again, as clients of UDP must.
const resend = 200 * time.Millisecond

// ask sends until the reply is the wanted one.
func ask(t testing.TB, conn *net.UDPConn, sent, want string) {
	t.Helper()
	var last string
	buf := make([]byte, maxDatagram+1)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err := conn.Write([]byte(sent)); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
			return
		}
		for until := time.Now().Add(resend); ; {
			if err := conn.SetReadDeadline(until); err != nil {
				t.Error(err)
			}
			n, err := conn.Read(buf)
			if err != nil {
				break
			}
			if last = string(buf[:n]); last == want {
				return
			}
		}
	}
	t.Errorf("got %d bytes %.20q, want %d bytes %.20q", len(last), last, len(want), want)
}

// dropped waits until an agent has dropped a datagram for a reason, while datagrams are sent. A late reply to an earlier datagram, which
// ask has sent twice, is no reply to these.
func (n *node) dropped(t testing.TB, conn *net.UDPConn, reason string) {
	t.Helper()
	sent := rand.Text()
	before := n.figure(t, "dropped_total", reason)
	buf := make([]byte, maxDatagram)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		_, _ = conn.Write([]byte(sent))
		_ = conn.SetReadDeadline(time.Now().Add(resend / 10))
		if got, err := conn.Read(buf); err == nil && strings.HasSuffix(string(buf[:got]), sent) {
			t.Fatalf("got the reply %q", buf[:got])
		}
		if n.figure(t, "dropped_total", reason) > before {
			return
		}
	}
	t.Fatalf("no datagram was dropped for %s", reason)
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never: " + what)
		}
	}
}

// figure returns a metric of project p. label is the value of its other label.
func (n *node) figure(t testing.TB, name, label string) float64 {
	t.Helper()
	families, err := n.cfg.Metrics.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if f.GetName() == "cara_ports_"+name && slices.Contains(values, "p") && slices.Contains(values, label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func (n *node) openSessions(t testing.TB, from string) float64 {
	t.Helper()
	return n.figure(t, "sessions_open", from)
}

// TestDatagrams: empty, small and the largest ones, of two clients, in one process and over another agent.
func TestDatagrams(t *testing.T) {
	large := make([]byte, maxDatagram)
	_, _ = rand.Read(large)
	check := func(t *testing.T, port int32) {
		one, two := udpDial(t, onPort(port)), udpDial(t, onPort(port))
		for _, sent := range []string{"hello", "", string(large), "hello again"} {
			ask(t, one, sent, sent)
			ask(t, two, "2"+sent[:min(len(sent), 9)], "2"+sent[:min(len(sent), 9)])
		}
	}
	t.Run("local", func(t *testing.T) {
		n, port := udpAlone(t, nil)
		check(t, port)
		if got := n.openSessions(t, fromClient); got != 2 {
			t.Errorf("%v sessions, want 2", got)
		}
		n.stop()
		if got := n.openSessions(t, fromClient); got != 0 || n.endpoints.count() != 0 {
			t.Errorf("%v sessions and %d endpoints are left", got, n.endpoints.count())
		}
	})
	t.Run("other node", func(t *testing.T) {
		first, second, port, _ := udpPair(t, nil)
		check(t, port)
		if got, there := first.served.Load(), second.served.Load(); got != 0 || there != 2 {
			t.Errorf("%d and %d connections between the agents, want 0 and 2", got, there)
		}
		first.stop()
		second.stop()
		if got := second.openSessions(t, fromAgent); got != 0 || second.endpoints.count() != 0 || !first.queued.TryAcquire(allQueuedBytes) {
			t.Errorf("%v sessions, %d endpoints or queued bytes are left", got, second.endpoints.count())
		}
	})
}

// TestRepliesLeaveFromTheAddressThatWasUsed, on a socket with all addresses of the machine. A connected client accepts no other.
func TestRepliesLeaveFromTheAddressThatWasUsed(t *testing.T) {
	for listen, addresses := range map[string][]string{
		"0.0.0.0": {"127.0.0.1", "127.0.0.2", "127.9.9.9"},
		"::":      {"127.0.0.2", "::1"},
	} {
		t.Run(listen, func(t *testing.T) {
			if _, err := net.ListenPacket("udp", net.JoinHostPort(listen, "0")); err != nil {
				t.Skip("this machine does not have the address: ", err)
			}
			_, port := udpAlone(t, func(c *Config) { c.Offer.InternalAddress = listen })
			for _, address := range addresses {
				ask(t, udpDial(t, net.JoinHostPort(address, strconv.Itoa(int(port)))), address, address)
			}
		})
	}
}

// TestDropped: nothing passes that must not, and everything that is dropped is counted.
func TestDropped(t *testing.T) {
	elsewhere := "192.0.2.0/24"
	t.Run("a client that is not allowed, by both agents", func(t *testing.T) {
		first, second, port, target := udpPair(t, nil)
		conn := udpDial(t, onPort(port))
		ask(t, conn, "x", "x")
		second.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n2"}, elsewhere))
		second.dropped(t, conn, refusedAllow)
		second.dropped(t, udpDial(t, onPort(port)), refusedAllow)
		second.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n2"}))
		first.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n2", IngressAddress: second.peers}, elsewhere))
		first.dropped(t, conn, refusedAllow)
		eventually(t, "the sessions of the client end", func() bool { return first.openSessions(t, fromClient) <= 1 })
	})
	t.Run("no service", func(t *testing.T) {
		n, port := udpAlone(t, nil)
		n.endpoints.drop("web")
		n.dropped(t, udpDial(t, onPort(port)), refusedService)
		if got := n.openSessions(t, fromClient); got != 0 {
			t.Errorf("%v sessions without a service", got)
		}
	})
	t.Run("more than one hop", func(t *testing.T) {
		first, second, port, target := udpPair(t, nil)
		for _, n := range []*node{first, second} {
			n.endpoints.drop("web")
		}
		second.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n1", IngressAddress: first.peers}))
		second.dropped(t, udpDial(t, onPort(port)), refusedService)
		if first.served.Load() != 0 {
			t.Error("the datagram came back to the first agent")
		}
	})
	t.Run("another project, scope or protocol than the claimed one", func(t *testing.T) {
		first, second, port, _ := udpPair(t, nil)
		for name, hello := range map[string]*carav1.PortConnection{
			"project":  {Protocol: api.ProtocolUDP, Port: port, Scope: api.ScopeInternal, Project: "q"},
			"scope":    {Protocol: api.ProtocolUDP, Port: port, Scope: api.ScopePublic, Project: "p"},
			"protocol": {Protocol: api.ProtocolTCP, Port: port, Scope: api.ScopeInternal, Project: "p"},
		} {
			hello.Client = "127.0.0.1"
			if _, err := first.hop(t.Context(), &route{node: "n2", address: second.peers}, hello); !errors.Is(err, errNoRoute) {
				t.Errorf("another %s: got %v", name, err)
			}
		}
	})
	t.Run("a node that cannot be reached, until it can be", func(t *testing.T) {
		first, second, port, target := udpPair(t, nil)
		first.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n2", IngressAddress: onPort(freePort(t))}))
		conn := udpDial(t, onPort(port))
		first.dropped(t, conn, refusedNode)
		first.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n2", IngressAddress: second.peers}))
		ask(t, conn, "x", "x")
	})
}

// TestATakenUDPPort is a problem that names the right command. The same TCP port is another port.
func TestATakenUDPPort(t *testing.T) {
	other, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := int32(other.LocalAddr().(*net.UDPAddr).Port)
	n := cluster(t)("n1", udp(func(c *Config) { c.Offer.Ports = append(c.Offer.Ports, "1-65535") }))
	n.endpoints.set("web", "127.0.0.1")
	all := udpClaim(port, udpService(t, "127.0.0.1:0", ""), &carav1.ProjectPorts{Node: "n1"})
	all.Ports[0].Ports = append(all.Ports[0].Ports, &carav1.ProjectPort{Name: "tcp", Port: port, Target: all.Ports[0].Ports[0].Target})
	n.Apply(all)
	n.waitFor(t, open(port), fmt.Sprintf("%d: another program on the machine uses 127.0.0.1:%d; stop it (ss -lunp shows it)", port, port))
	_ = other.Close()
	n.waitFor(t, open(port), open(port))
	ask(t, udpDial(t, onPort(port)), "x", "x")
}

// TestUDPRestart: an agent that cannot reach the server opens the ports that it had.
func TestUDPRestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ports.json")
	n, port := udpAlone(t, func(c *Config) { c.File = file })
	n.stop()
	again := &node{Ports: New(n.cfgWithoutMetrics()), endpoints: n.endpoints}
	again.run(t)
	again.waitFor(t, open(port))
	ask(t, udpDial(t, onPort(port)), "x", "x")
}

// TestRepliesToAClientThatIsNotAllowedAnyMore: a service that goes on sending does not reach it.
func TestRepliesToAClientThatIsNotAllowedAnyMore(t *testing.T) {
	n := cluster(t)("n1", udp(nil))
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	port, target := freeUDPPort(t), int32(socket.LocalAddr().(*net.UDPAddr).Port)
	n.endpoints.set("web", "127.0.0.1")
	n.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n1"}))
	n.waitFor(t, open(port))
	conn := udpDial(t, onPort(port))
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = socket.SetReadDeadline(time.Now().Add(patience))
	_, from, err := socket.ReadFrom(make([]byte, 9))
	if err != nil {
		t.Fatal(err)
	}
	n.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n1"}, "192.0.2.0/24"))
	if _, err := socket.WriteTo([]byte("secret"), from); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reply is dropped", func() bool { return n.figure(t, "dropped_total", refusedAllow) == 1 })
	_ = conn.SetReadDeadline(time.Now().Add(resend))
	if got, err := conn.Read(make([]byte, 9)); err == nil {
		t.Errorf("the client got %d bytes", got)
	}
}

// TestAServiceThatListensAgain: an error of the network does not end the session.
func TestAServiceThatListensAgain(t *testing.T) {
	n := cluster(t)("n1", udp(nil))
	target, port := freeUDPPort(t), freeUDPPort(t)
	n.endpoints.set("web", "127.0.0.1")
	n.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n1"}))
	n.waitFor(t, open(port))
	conn := udpDial(t, onPort(port))
	for range 3 {
		if _, err := conn.Write([]byte("lost")); err != nil {
			t.Fatal(err)
		}
	}
	udpService(t, onPort(target), "")
	ask(t, conn, "x", "x")
	if got := n.figure(t, "sessions_total", fromClient); got != 1 {
		t.Errorf("%v sessions began, want 1", got)
	}
}
