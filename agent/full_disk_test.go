package agent_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// forgetful is an engine that cannot store its state: while full is set, its list reports every container as created.
type forgetful struct {
	engine.Engine
	full   atomic.Bool
	starts atomic.Int64
}

func (e *forgetful) ListContainers(ctx context.Context, labels map[string]string) ([]engine.Container, error) {
	out, err := e.Engine.ListContainers(ctx, labels)
	for i := range out {
		if e.full.Load() {
			out[i].State, out[i].StartedAt, out[i].FinishedAt = engine.StateCreated, time.Time{}, time.Time{}
		}
	}
	return out, err
}

func (e *forgetful) StartContainer(ctx context.Context, id string) error {
	e.starts.Add(1)
	return e.Engine.StartContainer(ctx, id)
}

// TestActsOnInspection: decisions use the inspection of a container, not the list, which can be older.
func TestActsOnInspection(t *testing.T) {
	f := newFaked(t)
	eng := &forgetful{Engine: f.engine}
	eng.full.Store(true)
	f.cfg.Engine = eng
	f.run(t)
	f.put("p", services("web", "web"))
	f.wait(t, "p", phase(api.PhaseRunning))
	if n := eng.starts.Load(); n != 2 {
		t.Errorf("2 containers were started %d times", n)
	}
}

// idle is an engine that accepts one kind of call and ignores it.
type idle struct {
	engine.Engine
	idle  atomic.Bool
	calls atomic.Int64
}

func (e *idle) StartContainer(ctx context.Context, id string) error {
	e.calls.Add(1)
	if e.idle.Load() {
		return nil
	}
	return e.Engine.StartContainer(ctx, id)
}

// TestNoEffectBacksOff: an action that the engine accepts and ignores is retried with backoff. The condition says so, and
// the project comes up when the engine works again. Hints in between, such as the engine's events, do not shorten the wait.
func TestNoEffectBacksOff(t *testing.T) {
	f := newFaked(t)
	eng := &idle{Engine: f.engine}
	eng.idle.Store(true)
	f.cfg.Engine, f.cfg.Restart.Base = eng, 100*time.Millisecond
	f.run(t)
	f.put("p", services("web"))
	f.wait(t, "p", func(p *carav1.Project) bool {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady)
		return strings.Contains(c.GetMessage(), "starting container cara-p.a had no effect") && strings.Contains(c.GetMessage(), "(4 tries)")
	})
	if n := eng.calls.Load(); n > 5 {
		t.Errorf("%d calls for 4 tries", n)
	}
	eng.idle.Store(false)
	f.wait(t, "p", phase(api.PhaseRunning))
}

// TestEngineWithoutRoom: a project whose container finds no room on the engine's disk waits, however often it was tried, and
// comes up when there is room again.
func TestEngineWithoutRoom(t *testing.T) {
	f := newFaked(t)
	var tries atomic.Int64
	f.engine.Fault(func(call string) error {
		if call == "CreateContainer" && tries.Add(1) <= int64(f.cfg.Restart.Limit)+3 {
			return fmt.Errorf("create container: %w: no space left on device", engine.ErrNoRoom)
		}
		return nil
	})
	f.run(t)
	f.put("p", services("web"))
	f.wait(t, "p", func(p *carav1.Project) bool {
		return strings.Contains(api.FindCondition(p.GetStatus().GetConditions(), api.CondReady).GetMessage(), "no space left on device")
	})
	p := f.wait(t, "p", func(p *carav1.Project) bool {
		return p.GetStatus().GetPhase() == api.PhaseRunning || p.GetStatus().GetPhase() == api.PhaseFailed
	})
	if p.Status.Phase != api.PhaseRunning {
		t.Errorf("failed: %v", p.Status.Conditions)
	}
}

// TestFailingListIsNotEmpty: if the engine cannot list, nothing is known. Nothing is created, and nothing is reported as
// down or gone.
func TestFailingListIsNotEmpty(t *testing.T) {
	for _, call := range []string{"ListContainers", "ListNetworks", "ListVolumes", "InspectContainer"} {
		for name, failure := range map[string]error{
			"no answer": fmt.Errorf("list: %w", engine.ErrUnavailable), "an error": fmt.Errorf("list: something odd"),
		} {
			t.Run(call+", "+name, func(t *testing.T) {
				f := newFaked(t)
				spec := services("web")
				spec.Volumes = []*carav1.ProjectVolume{{Name: "v"}}
				f.up(t, spec)
				before := f.reported()
				var failed atomic.Int64
				f.engine.Fault(func(c string) error {
					switch {
					case c == call:
						failed.Add(1)
						return failure
					case strings.HasPrefix(c, "Create") || strings.HasPrefix(c, "Remove") || strings.HasPrefix(c, "Stop"):
						t.Errorf("%s while %s fails", c, call)
					}
					return nil
				})
				changed := services("web")
				changed.Volumes, changed.Services[0].Env = spec.Volumes, []*carav1.EnvVar{{Name: "A", Value: "1"}}
				f.put("p", changed)
				waitUntil(t, func() bool { return failed.Load() >= 3 })
				f.terminate("p")
				from := failed.Load()
				waitUntil(t, func() bool { return failed.Load() >= from+3 })
				if n := f.reported(); n != before {
					t.Errorf("%d reports while nothing is known", n-before)
				}
				f.engine.Fault(nil)
				f.wait(t, "p", gone)
				if !f.empty(t) {
					t.Error("something is left")
				}
			})
		}
	}
}
