package ports

import (
	"errors"
	"io"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// refuses checks that a new connection gets no byte.
func refuses(t *testing.T, port int32) {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

func TestRefused(t *testing.T) {
	short := func(c *Config) { c.Limits.Hold = 50 * time.Millisecond }
	t.Run("a service that is down", func(t *testing.T) {
		n, port := alone(t, short, echo)
		n.endpoints.drop("web")
		refuses(t, port)
	})
	t.Run("a client that is not allowed, by both agents", func(t *testing.T) {
		first, second, port := pair(t, nil, echo)
		elsewhere := "192.0.2.0/24"
		target := second.routing.table.Load().routes[api.PortKey{Protocol: api.ProtocolTCP, Port: port, Scope: api.ScopeInternal}].port
		second.Apply(claim(port, target, &carav1.ProjectPorts{Node: "n2"}, elsewhere))
		refuses(t, port)
		second.Apply(claim(port, target, &carav1.ProjectPorts{Node: "n2"}))
		first.Apply(claim(port, target, &carav1.ProjectPorts{Node: "n2", IngressAddress: second.peers}, elsewhere))
		refuses(t, port)
	})
	t.Run("more than one hop", func(t *testing.T) {
		// Only the second agent gives up early: the first one must reach it.
		first, second, port := pair(t, func(c *Config) {
			c.Metrics = prometheus.NewRegistry()
			if c.Node == "n2" {
				short(c)
			}
		}, echo)
		target := second.routing.table.Load().routes[api.PortKey{Protocol: api.ProtocolTCP, Port: port, Scope: api.ScopeInternal}].port
		second.endpoints.drop("web")
		second.Apply(claim(port, target, &carav1.ProjectPorts{Node: "n1", IngressAddress: first.peers}))
		first.endpoints.drop("web")
		conn := dial(t, port)
		eventually(t, "the second agent refuses", func() bool { return first.served.Load() > 0 || second.figure(t, "refused_total", refusedService) > 0 })
		first.stop()
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("got %d bytes, %v", n, err)
		}
		if first.served.Load() != 0 {
			t.Error("the connection came back to the first agent")
		}
	})
	t.Run("too many connections of one client", func(t *testing.T) {
		_, port := alone(t, func(c *Config) { c.Limits.ClientConnections = 1 }, echo)
		conn := dial(t, port)
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		refuses(t, port)
	})
	t.Run("another scope than the claimed one", func(t *testing.T) {
		first, second, port := pair(t, short, echo)
		to := &route{project: "p", node: "n2", address: second.peers}
		_, err := first.hop(t.Context(), to, &carav1.PortConnection{
			Protocol: api.ProtocolTCP, Port: port, Scope: api.ScopePublic, Project: "p", Client: "127.0.0.1",
		})
		if !errors.Is(err, errNoRoute) {
			t.Errorf("got %v", err)
		}
	})
}
