package ports

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/connlimit"
)

// TestASessionStaysWithItsContainer until that leaves the endpoints. Then the next datagram goes to the new one.
func TestASessionStaysWithItsContainer(t *testing.T) {
	check := func(t *testing.T, holder, at *node, port int32) {
		for _, address := range []string{"127.0.0.2", "127.0.0.3"} {
			udpService(t, net.JoinHostPort(address, strconv.Itoa(int(at.routing.table.Load().routes[udpKey(port)].port))), address+" ")
		}
		conn := udpDial(t, onPort(port))
		holder.endpoints.set("web", "127.0.0.2")
		ask(t, conn, "1", "127.0.0.2 1")
		ask(t, conn, "2", "127.0.0.2 2")
		holder.endpoints.drop("web")
		holder.dropped(t, conn, refusedService)
		holder.endpoints.set("web", "127.0.0.3")
		ask(t, conn, "3", "127.0.0.3 3")
		if got := at.openSessions(t, fromClient); got != 1 {
			t.Errorf("%v sessions, want the same one", got)
		}
	}
	t.Run("local", func(t *testing.T) {
		n, port := udpAlone(t, nil)
		check(t, n, n, port)
	})
	t.Run("other node", func(t *testing.T) {
		first, second, port, _ := udpPair(t, nil)
		check(t, second, first, port)
	})
}

func udpKey(port int32) api.PortKey {
	return api.PortKey{Protocol: api.ProtocolUDP, Port: port, Scope: api.ScopeInternal}
}

// TestABrokenStreamHeals: the other agent restarts, and the same session goes on.
func TestABrokenStreamHeals(t *testing.T) {
	first, second, port, target := udpPair(t, nil)
	conn := udpDial(t, onPort(port))
	ask(t, conn, "x", "x")
	second.stop()
	first.dropped(t, conn, refusedNode)
	again := &node{Ports: New(second.cfgWithoutMetrics()), endpoints: second.endpoints}
	again.run(t)
	again.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n2"}))
	first.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n2", IngressAddress: again.peers}))
	ask(t, conn, "y", "y")
}

func (n *node) cfgWithoutMetrics() Config {
	cfg := n.cfg
	cfg.Metrics = nil // they are registered once
	return cfg
}

// TestASlowStreamDrops: an agent that does not receive makes this agent drop datagrams of that session, and of no other.
func TestASlowStreamDrops(t *testing.T) {
	first, second, port, target := udpPair(t, nil)
	stuck, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	first.Apply(udpClaim(port, target, &carav1.ProjectPorts{Node: "n2", IngressAddress: stuck.Addr().String()}))
	slow := udpDial(t, onPort(port))
	large := bytes.Repeat([]byte("x"), 32<<10)
	count := func() float64 {
		return first.figure(t, "dropped_total", droppedSlow)
	}
	eventually(t, "a datagram is dropped", func() bool {
		if _, err := slow.Write(large); err != nil {
			t.Fatal(err)
		}
		return count() > 0
	})
	if !first.queued.TryAcquire(allQueuedBytes - queuedBytes) {
		t.Fatal("more bytes wait for one session than may")
	}
	first.queued.Release(allQueuedBytes - queuedBytes)
	first.endpoints.set("web", "127.0.0.1") // the project is on this node now: the listener still passes datagrams
	ask(t, udpDial(t, onPort(port)), "x", "x")
	ask(t, slow, "y", "y")
	eventually(t, "nothing waits", func() bool { return first.queued.TryAcquire(allQueuedBytes) })
	_ = second
}

// TestSessionsEnd: an idle one after its time, and the one that was idle for the longest time when there are too many.
func TestSessionsEnd(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		first, second, port, _ := udpPair(t, func(c *Config) { c.Limits.SessionIdle = 50 * time.Millisecond })
		conn := udpDial(t, onPort(port))
		ask(t, conn, "x", "x")
		eventually(t, "both ends end it", func() bool { return first.openSessions(t, fromClient) == 0 && second.openSessions(t, fromAgent) == 0 })
		for _, n := range []*node{first, second} {
			eventually(t, "it leaves its place", func() bool {
				n.sessions.mu.Lock()
				defer n.sessions.mu.Unlock()
				return n.sessions.all.Len() == 0
			})
		}
		ask(t, conn, "y", "y")
	})
	t.Run("too many", func(t *testing.T) {
		n, port := udpAlone(t, func(c *Config) { c.Limits.ClientSessions = 2 })
		var conns []*net.UDPConn
		for i := range 3 {
			conns = append(conns, udpDial(t, onPort(port)))
			ask(t, conns[i], "x", "x")
			ask(t, conns[0], "x", "x") // the first one is in use
		}
		evicted := n.figure(t, "sessions_evicted_total", fromClient)
		if got := n.openSessions(t, fromClient); got != 2 || evicted != 1 {
			t.Errorf("%v sessions and %v that ended early, want 2 and 1", got, evicted)
		}
		ask(t, conns[1], "again", "again")
	})
}

// TestASessionInOneDirectionIsInUse: a service that sends no replies, as for logs.
func TestASessionInOneDirectionIsInUse(t *testing.T) {
	n := cluster(t)("n1", udp(func(c *Config) { c.Limits.ClientSessions = 2 }))
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	port := freeUDPPort(t)
	n.endpoints.set("web", "127.0.0.1")
	n.Apply(udpClaim(port, int32(socket.LocalAddr().(*net.UDPAddr).Port), &carav1.ProjectPorts{Node: "n1"}))
	n.waitFor(t, open(port))
	a, b, c := udpDial(t, onPort(port)), udpDial(t, onPort(port)), udpDial(t, onPort(port))
	sent := []*net.UDPConn{a, b, a, c, a, b} // c ends the session of b, and b that of c
	for _, conn := range sent {
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all arrive", func() bool { return n.figure(t, "datagrams_total", received) == float64(len(sent)) })
	if got := n.figure(t, "sessions_total", fromClient); got != 4 {
		t.Errorf("%v sessions began, want 4", got)
	}
}

// TestManyClientsOfAnotherNode: more than those whose connections are opened at the same time.
func TestManyClientsOfAnotherNode(t *testing.T) {
	_, second, port, _ := udpPair(t, nil)
	var all sync.WaitGroup
	for range maxDialing + 8 {
		conn := udpDial(t, onPort(port))
		all.Go(func() { ask(t, conn, "x", "x") })
	}
	all.Wait()
	if got := second.openSessions(t, fromAgent); got != maxDialing+8 {
		t.Errorf("%v sessions", got)
	}
}

// TestWhichSessionEnds: of a client that has too many, its own; otherwise the oldest idle one of all.
func TestWhichSessionEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		total, each int
		enter       []string // clients; `N` touches the session with this number
		gone        []int
	}{
		"none":                        {3, 2, []string{"192.0.2.1", "192.0.2.1", "192.0.2.2"}, nil},
		"its own":                     {9, 2, []string{"192.0.2.2", "192.0.2.1", "192.0.2.1", "192.0.2.1"}, []int{1}},
		"its own, but not in use":     {9, 2, []string{"192.0.2.2", "192.0.2.1", "192.0.2.1", "1", "192.0.2.1"}, []int{2}},
		"of all":                      {2, 2, []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"}, []int{0, 1}},
		"of all, but not in use":      {2, 2, []string{"192.0.2.1", "192.0.2.2", "0", "192.0.2.3"}, []int{1}},
		"a /64 of IPv6 is one client": {9, 1, []string{"2001:db8::1", "2001:db8:0:1::1", "2001:db8::2"}, []int{0}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSessions(tt.total, tt.each)
			var places []*place
			var gone []int
			for _, step := range tt.enter {
				if i, err := strconv.Atoi(step); err == nil {
					s.touch(places[i])
					continue
				}
				i := len(places)
				places = append(places, &place{of: connlimit.Prefix(netip.MustParseAddr(step)), evict: func() { gone = append(gone, i) }})
				s.enter(places[i])
			}
			if fmt.Sprint(gone) != fmt.Sprint(tt.gone) {
				t.Errorf("ended %v, want %v", gone, tt.gone)
			}
			for _, p := range places {
				s.leave(p)
				s.leave(p)
				s.touch(p)
			}
			if s.all.Len() != 0 || len(s.own) != 0 {
				t.Errorf("%d sessions of %d clients are left", s.all.Len(), len(s.own))
			}
		})
	}
}

// TestReceiveAfterAnError: a socket whose peer did not listen receives what the peer sends later.
func TestReceiveAfterAnError(t *testing.T) {
	port := freeUDPPort(t)
	conn := udpDial(t, onPort(port))
	got, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- receive(conn, func(frame []byte) { got <- string(frame[frameHeader:]) }) }()
	if _, err := conn.Write([]byte("nobody listens")); err != nil {
		t.Fatal(err)
	}
	peer, err := net.ListenPacket("udp", onPort(port))
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if _, err := peer.WriteTo([]byte("hello"), conn.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-got:
		if text != "hello" {
			t.Errorf("got %q", text)
		}
		_ = conn.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("it ended with %v", err)
		}
	case err := <-ended:
		t.Errorf("it ended with %v", err)
	case <-time.After(patience):
		t.Error("nothing was received")
	}
}
