package agent_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
)

// rig is an agent over some engine, with a server of its own.
type rig struct {
	*server
	cfg   agent.Config
	agent *agent.Agent
	stop  func()
}

func newRig(t testing.TB, cluster string, eng engine.Engine) *rig {
	r := &rig{server: newServer(t, cluster)}
	r.cfg = rigConfig(r.conn, eng, cluster, t.TempDir(), logger(t))
	return r
}

// rigConfig is a configuration with shorter intervals than on a real node.
func rigConfig(conn grpc.ClientConnInterface, eng engine.Engine, cluster, dir string, log *slog.Logger) agent.Config {
	return agent.Config{
		Conn: conn, Engine: eng, NodeName: "n1", ClusterID: cluster, DataDir: dir,
		Logger: log, MaxBackoff: 500 * time.Millisecond, Relist: 2 * time.Second, OrphanGrace: time.Second,
		ServerGrace: time.Second, Restart: step.RestartLimits{Base: 20 * time.Millisecond, Limit: 5, Settle: 50 * time.Millisecond},
	}
}

func logger(t testing.TB) *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// run starts a new agent with the same engine and directory. stop ends it without any last report or action, as if it were
// killed.
func (r *rig) run(t testing.TB) {
	t.Helper()
	a, err := agent.New(r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // subtests start agents that outlive them
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	r.agent = a
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.stop = nil
	}
}

// waitUntil waits for a condition that no report announces.
func waitUntil(t testing.TB, done func() bool) {
	t.Helper()
	began, deadline := time.Now(), time.After(2*time.Minute)
	for !done() {
		select {
		case <-deadline:
			t.Fatal("not within two minutes")
		case <-time.After(min(max(time.Since(began)/10, 5*time.Millisecond), 100*time.Millisecond)): // done often asks the engine
		}
	}
}
