package agent_test

import (
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestNothingIsWaitedForWhereNobodyListens: an agent that starts while nothing listens at its server's address starts the
// last assignments immediately, and not only after the grace.
func TestNothingIsWaitedForWhereNobodyListens(t *testing.T) {
	f := newFaked(t)
	f.up(t, services("web"))
	f.stop()
	f.engine.Kill(f.containers(t)["cara-p.a"].ID)

	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	f.cfg.Conn, f.cfg.ServerGrace = conn, time.Hour
	f.run(t)
	waitUntil(t, func() bool { return f.containers(t)["cara-p.a"].State == engine.StateRunning })
	f.stop()

	// A server that responds with an error is different: the projects may have moved to another node.
	f.engine.Kill(f.containers(t)["cara-p.a"].ID)
	f.away(true)
	f.cfg.Conn = f.conn
	f.run(t)
	refused := f.refusals()
	waitUntil(t, func() bool { return f.refusals() > refused+2 })
	if c := f.containers(t)["cara-p.a"]; c.State == engine.StateRunning {
		t.Error("the container runs again though the server is there")
	}
	f.away(false)
	f.wait(t, "p", phase(api.PhaseRunning))
}

// TestObeyed: after a recovery the agent tells what it has: the newest assignment of each project, also
// of one that it read from disk.
func TestObeyed(t *testing.T) {
	f := newFaked(t)
	f.up(t, services("web"))
	f.edit("p", func(p *carav1.Project) { p.Status.Epoch, p.Status.Phase = 4, api.PhaseScheduled })
	f.wait(t, "p", phase(api.PhaseRunning))
	f.stop()
	f.mu.Lock()
	f.asks = true
	f.mu.Unlock()
	f.run(t)
	waitUntil(t, func() bool { return f.answer() != nil })
	got := f.answer().GetProjects()
	if len(got) != 1 || got[0].GetName() != "p" || got[0].GetUid() == "" || got[0].GetEpoch() != 4 {
		t.Errorf("obeyed %v", got)
	}
	f.wait(t, "p", phase(api.PhaseRunning))
}
