package ports

import (
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/proxyheader"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// behind makes an agent take these networks for those of load balancers.
func behind(network string) func(*Config) {
	return func(c *Config) {
		c.Limits.ClientConnections, c.Limits.Header = 2, time.Hour
		c.ProxyProtocolFrom = proxyheader.Senders{netip.MustParsePrefix(network)}
	}
}

// greeter says hello before the client says anything, and then echoes.
func greeter(conn *net.TCPConn) {
	_, _ = conn.Write([]byte("hello "))
	_, _ = io.Copy(conn, conn)
}

// said sends text on a new connection, ends it, and returns what came back. "reset" is a connection that was refused.
func said(t *testing.T, port int32, text string) string {
	t.Helper()
	raw, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return "reset" // so soon that it was never open
	}
	defer raw.Close()
	conn := raw.(*net.TCPConn)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte(text)) // it may be reset already
	_ = conn.CloseWrite()
	got, err := io.ReadAll(conn)
	if err != nil {
		return "reset"
	}
	return string(got)
}

const (
	client1 = "PROXY TCP4 192.0.2.1 10.0.0.1 12345 80\r\n"
	client2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x02\x0a\x00\x00\x01\x30\x39\x00\x50" // 192.0.2.2
	local   = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
)

// TestWhoseHeaderIsBelieved: the client of the header counts for the access list, here and at the agent of another node, and the
// service gets no byte of the header.
func TestWhoseHeaderIsBelieved(t *testing.T) {
	for name, tt := range map[string]struct{ network, allow, sent, want string }{
		"version 1":                {"127.0.0.0/8", "192.0.2.1/32", client1 + "x", "hello x"},
		"version 2":                {"127.0.0.0/8", "192.0.2.2/32", client2 + "x", "hello x"},
		"a client without access":  {"127.0.0.0/8", "192.0.2.2/32", client1 + "x", "reset"},
		"LOCAL":                    {"127.0.0.0/8", "127.0.0.0/8", local + "x", "hello x"},
		"LOCAL without access":     {"127.0.0.0/8", "192.0.2.0/24", local + "x", "reset"},
		"no header":                {"127.0.0.0/8", "127.0.0.0/8", "a text without a header", "reset"},
		"a broken header":          {"127.0.0.0/8", "127.0.0.0/8", "PROXY TCP4 nobody\r\n", "reset"},
		"two headers":              {"127.0.0.0/8", "192.0.2.1/32", client1 + client2, "hello " + client2},
		"others, a header is data": {"192.0.2.0/24", "127.0.0.0/8", client1 + "x", "hello " + client1 + "x"},
		"others get no access":     {"192.0.2.0/24", "192.0.2.0/24", client1 + "x", "reset"},
	} {
		t.Run(name, func(t *testing.T) {
			first, second, port := pair(t, behind(tt.network), greeter)
			target := service(t, greeter)
			second.Apply(claim(port, target, &carav1.ProjectPorts{Node: "n2"}, tt.allow))
			first.Apply(claim(port, target, &carav1.ProjectPorts{Node: "n2", IngressAddress: second.peers}, tt.allow))
			if got := said(t, port, tt.sent); got != tt.want {
				t.Errorf("another node: %q, want %q", got, tt.want)
			}
			second.endpoints.set("web", "")
			first.endpoints.set("web", "127.0.0.1")
			if got := said(t, port, tt.sent); got != tt.want {
				t.Errorf("this node: %q, want %q", got, tt.want)
			}
		})
	}
}

// TestAClientBehindALoadBalancerHasAShare: the limit of one client applies to each client of the load balancer. A connection
// whose header is not complete counts for the load balancer.
func TestAClientBehindALoadBalancerHasAShare(t *testing.T) {
	n, port := alone(t, behind("127.0.0.0/8"), greeter)
	open := func(header string) (conn *net.TCPConn, ok bool) {
		conn = dial(t, port)
		_, _ = conn.Write([]byte(header)) // it may be reset already
		_, err := io.ReadFull(conn, make([]byte, len("hello ")))
		return conn, err == nil
	}
	for range 2 {
		if _, ok := open(client1); !ok {
			t.Fatal("a connection of the first client is refused")
		}
	}
	if _, ok := open(client1); ok {
		t.Error("a third connection of one client is accepted")
	}
	second, ok := open(client2)
	if !ok {
		t.Error("another client of the load balancer is refused")
	}
	_ = second.Close()
	if got := said(t, port, ""); got != "" {
		t.Errorf("a check of the port: %q", got)
	}
	if got := said(t, port, strings.Repeat("x", 12)); got != "reset" {
		t.Errorf("no header: %q", got)
	}
	silent := dial(t, port) // Run must not wait for its header
	n.stop()
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("a connection without a header is still open")
	}
	if open, clients := n.clients.Counts(); open != 0 || clients != 0 {
		t.Errorf("%d connections are still counted, of %d clients", open, clients)
	}
}

// TestAHeaderHasItsTime: a load balancer that sends no header is disconnected. The time ends with the header.
func TestAHeaderHasItsTime(t *testing.T) {
	_, port := alone(t, func(c *Config) {
		behind("127.0.0.0/8")(c)
		c.Limits.Header = 2 * time.Second
	}, echo)
	conn := dial(t, port)
	echoes := func() {
		t.Helper()
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Write([]byte(client1)); err != nil {
		t.Fatal(err)
	}
	echoes()
	if _, err := dial(t, port).Read(make([]byte, 1)); err == nil {
		t.Fatal("a connection without a header has data")
	}
	echoes() // its own time would be over now
}
