package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

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
		address, err := testcluster.FreeAddress()
		w.must(err)
		_, port, err := net.SplitHostPort(address)
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
