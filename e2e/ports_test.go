package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestPorts: a port of one node leads to a service on another.
func TestPorts(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	second := secondEngine(t)
	w := newWorld(t, options{listen: wildcard(t)})
	ports := w.freePorts(3)
	w.agent("n1", host, nil, "--ports", strings.Join(ports[:2], ","), "--ports-internal", "127.0.0.1")
	w.agent("n2", second.Host, second)
	testdocker.Images(t, host, testimage.Echo)
	testdocker.Images(t, second.Host, testimage.Echo)
	w.ctl("", "cordon", "n1")

	far := w.name("far")
	port, at := ports[0], "127.0.0.1:"+ports[0]
	r := w.ctl(echoOn(far, port, "one"), "apply", "--wait", "-f", "-")
	w.says("apply --wait", r.Stdout, "tcp://n1:"+port+"\n")
	if node := w.project(far).GetStatus().GetNodeRef(); node != "n2" {
		t.Fatalf("the project runs on %s", node)
	}
	big := make([]byte, 1<<20)
	_, _ = rand.Read(big)
	w.must(bounce(at, big))
	w.says("get routes", w.ctl("", "get", "routes").Stdout, "tcp/"+port, "echo:9000", far, "n2")
	w.says("describe project", w.ctl("", "describe", "project", far).Stdout, "tcp/"+port+" (Internal)", "PortsOpen")
	w.says("describe node", w.ctl("", "describe", "node", "n1").Stdout, "(Internal on 127.0.0.1)", "tcp/"+port+" (Internal)", "open")

	w.sub("a second claim is refused", func(w *testCluster) {
		r := w.ctl(echoOn(w.name("late"), port, "x"), "apply", "-f", "-")
		w.says("apply", r.Stderr, "TCP port "+port+` (Internal) belongs to project "`+far+`"`)
	})
	w.sub("an update refuses no connection", func(w *testCluster) { w.updateUnderConnections(far, port) })
	w.sub("a taken port is a condition and heals", func(w *testCluster) { w.takenPort(ports[1]) })
	w.sub("a port that no node offers", func(w *testCluster) {
		name := w.name("unoffered")
		w.apply(echoOn(name, ports[2], "x"))
		w.portsAre(name, api.ReasonPortNotOffered, "no node offers TCP port "+ports[2]+" (Internal)")
		w.running(name)
	})
	w.sub("an agent that restarts without the server", func(w *testCluster) {
		w.stored("n1", "ports.json", far)
		w.must(w.Server.Kill())
		w.must(w.Agents["n1"].Kill())
		w.must(w.RestartAgent("n1"))
		ctx, cancel := w.patience()
		defer cancel()
		w.must(testcluster.WaitFor(ctx, "the port is open again", func(context.Context) error { return bounce(at, []byte("x")) }))
		w.must(w.StartServer(ctx))
		w.ready("n1")
		w.must(bounce(at, big))
	})
	w.ctl("", "delete", "project", far)
	w.gone(far)
	near := w.name("near") // the claim is free
	w.ctl("", "uncordon", "n1")
	w.apply(echoOn(near, port, "x"))
	w.running(near)
	w.portsAre(near, api.ReasonPortsOpen, "n1")
	w.must(bounce(at, big))
}

// TestUDPPorts: a UDP port of one node leads to a service on another, and to one on the node itself.
func TestUDPPorts(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	second := secondEngine(t)
	w := newWorld(t, options{listen: wildcard(t)})
	port := w.freePorts(1)[0]
	w.agent("n1", host, nil, "--ports", port+"/udp", "--ports-internal", "0.0.0.0")
	w.agent("n2", second.Host, second)
	testdocker.Images(t, host, testimage.Echo)
	testdocker.Images(t, second.Host, testimage.Echo)
	w.ctl("", "cordon", "n1")

	far := w.name("far")
	r := w.ctl(udpEchoOn(far, port, "one", ""), "apply", "--wait", "-f", "-")
	w.says("apply --wait", r.Stdout, "udp://n1:"+port+"\n")
	if node := w.project(far).GetStatus().GetNodeRef(); node != "n2" {
		t.Fatalf("the project runs on %s", node)
	}
	w.says("get routes", w.ctl("", "get", "routes").Stdout, "udp/"+port, "echo:9000", far, "n2")
	w.says("describe project", w.ctl("", "describe", "project", far).Stdout, "udp/"+port+" (Internal)", "PortsOpen")
	w.says("describe node", w.ctl("", "describe", "node", "n1").Stdout, port+"/udp (Internal on 0.0.0.0)", "udp/"+port+" (Internal)", "open")
	w.echoesDatagrams(port)

	w.sub("a session goes to the new container after an update", func(w *testCluster) {
		conn, ctx := w.dialUDP("127.0.0.1", port)
		w.must(bounceDatagram(ctx, conn, []byte("before")))
		before := w.project(far).GetStatus().GetServices()[0].GetContainerId()
		w.apply(udpEchoOn(far, port, "two", ""))
		w.until(far, "runs its new container", func(p *carav1.Project) bool {
			s := p.GetStatus().GetServices()
			return p.GetStatus().GetObservedGeneration() == 2 && testcluster.Runs(p) && len(s) == 1 && s[0].GetContainerId() != before
		})
		w.must(bounceDatagram(ctx, conn, []byte("after")))
	})
	w.sub("agents that restart without the server", func(w *testCluster) {
		conn, ctx := w.dialUDP("127.0.0.1", port)
		w.must(bounceDatagram(ctx, conn, []byte("before")))
		w.must(w.Server.Kill())
		for _, node := range []string{"n1", "n2"} {
			w.stored(node, "ports.json", far)
			w.must(w.Agents[node].Kill())
			w.must(w.RestartAgent(node))
			w.must(bounceDatagram(ctx, conn, []byte("after "+node)))
		}
		w.must(w.StartServer(ctx))
		w.ready("n1")
		w.ready("n2")
	})
	w.sub("an access list", func(w *testCluster) {
		conn, ctx := w.dialUDP("127.0.0.1", port)
		w.must(bounceDatagram(ctx, conn, []byte("allowed")))
		w.apply(udpEchoOn(far, port, "two", "127.0.0.2/32"))
		w.must(testcluster.WaitFor(ctx, "the client is not allowed", func(context.Context) error {
			if answered(w, conn) {
				return errors.New("it got a reply")
			}
			return nil
		}))
		other, ctx := w.dialUDPFrom("127.0.0.2", "127.0.0.1", port)
		w.must(bounceDatagram(ctx, other, []byte("allowed")))
		if answered(w, conn) {
			w.Error("the client that is not allowed got a reply")
		}
	})
	w.ctl("", "delete", "project", far)
	w.gone(far)
	near := w.name("near") // the claim is free
	w.ctl("", "uncordon", "n1")
	w.apply(udpEchoOn(near, port, "x", ""))
	w.running(near)
	w.portsAre(near, api.ReasonPortsOpen, "UDP port "+port+" (Internal) on n1")
	w.echoesDatagrams(port)
}

// udpEchoOn is echoOn for a UDP port that only clients of the network in allow can use; empty means all.
func udpEchoOn(name, port, mark, allow string) string {
	list := ""
	if allow != "" {
		list = ", allow: [" + allow + "]"
	}
	return strings.Replace(echoOn(name, port, mark), "{name: echo, port:", "{name: echo, protocol: UDP"+list+", port:", 1)
}

// echoesDatagrams sends small and large datagrams to several addresses of this machine. A connected socket gets replies only
// from the address and port to which it sends.
func (w *testCluster) echoesDatagrams(port string) {
	w.Helper()
	large := make([]byte, 65507)
	_, _ = rand.Read(large)
	for _, address := range []string{"127.0.0.1", "127.0.0.2"} {
		conn, ctx := w.dialUDP(address, port)
		for _, sent := range [][]byte{[]byte("hello"), {}, large[:1473], large} {
			w.must(bounceDatagram(ctx, conn, sent))
		}
	}
}

func (w *testCluster) dialUDP(address, port string) (net.Conn, context.Context) {
	w.Helper()
	return w.dialUDPFrom("127.0.0.1", address, port)
}

func (w *testCluster) dialUDPFrom(from, address, port string) (net.Conn, context.Context) {
	w.Helper()
	ctx, cancel := w.patience()
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.DialContext(ctx, "udp", net.JoinHostPort(address, port))
	w.must(err)
	w.Cleanup(func() { cancel(); _ = conn.Close() })
	return conn, ctx
}

// datagramWait is how long a client waits before it sends again. Datagrams may be lost.
const datagramWait = 300 * time.Millisecond

// bounceDatagram sends a datagram until it comes back.
func bounceDatagram(ctx context.Context, conn net.Conn, sent []byte) error {
	last := errors.New("nothing was sent")
	for buf := make([]byte, 65508); ctx.Err() == nil; {
		_, last = conn.Write(sent) // fails once after a datagram that found no listener
		for end := time.Now().Add(datagramWait); ; {
			if err := conn.SetReadDeadline(end); err != nil {
				return err
			}
			n, err := conn.Read(buf)
			if err == nil && bytes.Equal(buf[:n], sent) {
				return nil
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
		}
	}
	return fmt.Errorf("a datagram of %d bytes did not come back: %w", len(sent), errors.Join(ctx.Err(), last))
}

// answered reports whether a datagram gets a reply.
func answered(w *testCluster, conn net.Conn) bool {
	buf := make([]byte, 65508)
	w.must(conn.SetReadDeadline(time.Now().Add(datagramWait)))
	for { // of an earlier one
		if _, err := conn.Read(buf); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	_, _ = conn.Write([]byte("allowed?"))
	w.must(conn.SetReadDeadline(time.Now().Add(datagramWait)))
	_, err := conn.Read(buf)
	return err == nil
}

// echoOn is a project of one echo whose port of nodes leads to it.
func echoOn(name, port, mark string) string {
	return project(name, `
services:
- name: echo
  image: `+testimage.Echo+`
  env: [{name: MARK, value: "`+mark+`"}]
  healthcheck: {tcp: {port: 9000}, interval: 200ms}
  stopGracePeriod: 1s
  update: {order: start-first}
ports:
- {name: echo, port: `+port+`, target: {service: echo, port: 9000}}`)
}

func (w *testCluster) freePorts(n int) []string {
	w.Helper()
	var out []string
	for range n {
		port, err := testcluster.FreePort()
		w.must(err)
		out = append(out, port)
	}
	return out
}

// portsAre waits until a project's condition PortsReady has a reason and a text.
func (w *testCluster) portsAre(name, reason, text string) {
	w.Helper()
	w.until(name, "has the condition PortsReady with "+reason, func(p *carav1.Project) bool {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondPortsReady)
		return c.GetReason() == reason && strings.Contains(c.GetMessage(), text)
	})
}

// updateUnderConnections replaces the container while clients connect.
func (w *testCluster) updateUnderConnections(name, port string) {
	before := w.project(name).GetStatus().GetServices()[0].GetContainerId()
	var made atomic.Int64
	ctx, stop := context.WithCancel(w.Context())
	failed := make(chan error, 4)
	var clients sync.WaitGroup
	for range cap(failed) {
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := bounce("127.0.0.1:"+port, []byte("hello")); err != nil {
					failed <- err
					return
				}
				made.Add(1)
			}
		})
	}
	w.apply(echoOn(name, port, "two"))
	w.until(name, "runs its new container", func(p *carav1.Project) bool {
		s := p.GetStatus().GetServices()
		return p.GetStatus().GetObservedGeneration() == 2 && testcluster.Runs(p) && len(s) == 1 && s[0].GetContainerId() != before
	})
	stop()
	clients.Wait()
	close(failed)
	for err := range failed {
		w.Errorf("after %d connections: %v", made.Load(), err)
	}
	w.Logf("%d connections during the update", made.Load())
}

// takenPort claims a port that another program has on the node.
func (w *testCluster) takenPort(port string) {
	other, err := net.Listen("tcp4", "127.0.0.1:"+port)
	w.must(err)
	defer other.Close()
	name := w.name("taken")
	w.apply(echoOn(name, port, "x"))
	w.portsAre(name, api.ReasonPortNotOpen, "is not open on node n1: another program on the machine uses 127.0.0.1:"+port)
	w.running(name)
	w.says("describe node", w.ctl("", "describe", "node", "n1").Stdout, "PortsReady", "another program on the machine uses 127.0.0.1:"+port)
	w.must(other.Close())
	w.portsAre(name, api.ReasonPortsOpen, "n1")
	w.must(bounce("127.0.0.1:"+port, []byte("x")))
	ctx, cancel := w.patience()
	defer cancel()
	nodes, err := w.Nodes()
	w.must(err)
	w.must(testcluster.WaitFor(ctx, "the node is well again", func(ctx context.Context) error {
		n, err := nodes.GetNode(ctx, &carav1.GetRequest{Name: "n1"})
		if err == nil && api.FindCondition(n.GetStatus().GetConditions(), api.CondPortsReady) != nil {
			err = errors.New(fmt.Sprint(n.GetStatus().GetConditions()))
		}
		return err
	}))
}
