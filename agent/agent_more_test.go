package agent_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestFailedStaysFailed starts another agent with a failed project on disk, with and without a connection to the server.
func TestFailedStaysFailed(t *testing.T) {
	for name, away := range map[string]bool{"server there": false, "server away": true} {
		t.Run(name, func(t *testing.T) {
			f := newFaked(t)
			spec := services("job")
			spec.Services[0].Args = []string{"-exit", "3"}
			f.run(t)
			f.put("p", spec)
			f.wait(t, "p", phase(api.PhaseFailed))
			f.put("q", services("web")) // once q is up, what was reported of p is on disk
			f.wait(t, "q", phase(api.PhaseRunning))
			starts := f.containers(t)["cara-p.a"].StartedAt
			f.stop()
			f.away(away)
			f.engine.Kill(f.containers(t)["cara-q.a"].ID)
			f.run(t)
			waitUntil(t, func() bool { return f.containers(t)["cara-q.a"].State == engine.StateRunning })
			if c := f.containers(t)["cara-p.a"]; c.State != engine.StateExited || !c.StartedAt.Equal(starts) {
				t.Errorf("the failed project's container: %+v", c)
			}
		})
	}
}

// hung is an engine that takes a ping and never answers.
type hung struct {
	engine.Engine
}

func (*hung) Ping(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("%w: %w", engine.ErrUnavailable, ctx.Err())
}

func TestHungEngineKeepsTheNodeAlive(t *testing.T) {
	f := newFaked(t)
	f.cfg.Engine = &hung{f.engine}
	f.run(t)
	waitUntil(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.beats) > 2
	})
}

func TestSecondAgentTakesOver(t *testing.T) {
	f := newFaked(t)
	a, err := agent.New(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.supersede(api.TakenOver("another agent has connected"))
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "taken over") {
		t.Errorf("the older agent ends with %v", err)
	}
}

// TestAConflictIsNoTakeover: an agent connects again after a server's write has failed because something changed meanwhile.
func TestAConflictIsNoTakeover(t *testing.T) {
	f := newFaked(t)
	f.supersede(api.Conflict("project p has changed"))
	f.run(t)
	waitUntil(t, func() bool { return f.refusals() > 2 })
	f.supersede(nil)
	f.put("p", services("web"))
	f.wait(t, "p", phase(api.PhaseRunning))
}

func TestMissingSecretWaits(t *testing.T) {
	f := newFaked(t)
	spec := services("web")
	spec.Services[0].Env = []*carav1.EnvVar{{Name: "P", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "p"}}}}
	f.run(t)
	f.put("p", spec)
	f.wait(t, "p", func(p *carav1.Project) bool {
		return strings.Contains(api.FindCondition(p.GetStatus().GetConditions(), api.CondReady).GetMessage(), "secret db/p does not exist")
	})
	f.mu.Lock()
	f.secrets["p"] = map[string][]byte{"db/p": []byte("x")}
	f.mu.Unlock()
	f.edit("p", func(*carav1.Project) {})
	f.wait(t, "p", phase(api.PhaseRunning))
}

func TestDependenciesInOrder(t *testing.T) {
	f := newFaked(t)
	spec := services("web", "job", "web")
	spec.Services[0].DependsOn = []*carav1.Dependency{{Service: "c"}, {Service: "b", Condition: api.DependsCompleted}}
	spec.Services[1].Args, spec.Services[1].RestartPolicy = []string{"-after", "30ms"}, api.RestartOnFailure
	f.run(t)
	f.put("p", spec)
	f.wait(t, "p", phase(api.PhaseRunning))
	c := f.containers(t)
	if a, b, c := c["cara-p.a"], c["cara-p.b"], c["cara-p.c"]; a.StartedAt.Before(b.FinishedAt) || a.StartedAt.Before(c.StartedAt) {
		t.Errorf("a started %s, b finished %s, c started %s", a.StartedAt, b.FinishedAt, c.StartedAt)
	}
	waitUntil(t, func() bool { return slices.Equal(f.phasesOf("p"), []string{api.PhaseRunning}) })
}

func TestManyProjectsAtOnce(t *testing.T) {
	f := newFaked(t)
	f.run(t)
	const many = 200
	begun := time.Now()
	for i := range many {
		f.put(fmt.Sprint("p", i), services("web", "web", "web"))
	}
	for i := range many {
		f.wait(t, fmt.Sprint("p", i), phase(api.PhaseRunning))
	}
	for i := range many {
		f.terminate(fmt.Sprint("p", i))
	}
	for i := range many {
		f.wait(t, fmt.Sprint("p", i), gone)
	}
	t.Logf("%d projects up and down in memory: %s", many, time.Since(begun).Round(time.Millisecond))
	if !f.empty(t) {
		t.Error("something is left")
	}
}

// TestSlowReader stops reading until lines are dropped. The received lines and the reported number of lost lines must add
// up.
func TestSlowReader(t *testing.T) {
	f := newFaked(t)
	spec := services("job")
	spec.Services[0].Args = []string{"-lines", "20000", "-after", "1h"}
	f.up(t, spec)
	f.mu.Lock()
	f.hold = make(chan struct{})
	f.send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_OpenStream{OpenStream: &carav1.OpenStream{
		StreamId: "slow", Kind: &carav1.OpenStream_Logs{Logs: &carav1.LogsRequest{Name: "p"}},
	}}})
	f.mu.Unlock()
	waitUntil(t, func() bool { return f.engine.Calls("Logs ended") == 1 })
	close(f.hold)
	waitUntil(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.closed["slow"]
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	var got, lost int
	for _, m := range f.lines["slow"] {
		if m.GetLog().GetTime() != nil {
			got++
		}
		lost += int(m.GetLog().GetLost())
	}
	if lost == 0 || got+lost != 20000 {
		t.Errorf("%d lines came, %d are said to be lost, want 20000 in all", got, lost)
	}
}
