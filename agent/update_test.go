package agent_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// startFirst is one service that is replaced start-first.
func startFirst(image string, args ...string) *carav1.ProjectSpec {
	spec := services(image)
	spec.Services[0].Args, spec.Services[0].Update = args, &carav1.Update{Order: api.UpdateStartFirst}
	return spec
}

func reason(want string) func(*carav1.Project) bool {
	return func(p *carav1.Project) bool {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady)
		return c.GetReason() == want && c.GetObservedGeneration() == p.GetMetadata().GetGeneration()
	}
}

// watchEndpoint notes whether the service has no address at any time, as long as this agent runs.
func (f *faked) watchEndpoint(t *testing.T) (missing *atomic.Bool) {
	missing = &atomic.Bool{}
	endpoints, done := f.agent.Endpoints(), t.Context().Done()
	go func() {
		for {
			changed := endpoints.Changed()
			if _, ok := endpoints.IP("p", "a"); !ok {
				missing.Store(true)
			}
			select {
			case <-changed:
			case <-done:
				return
			}
		}
	}()
	return missing
}

// TestUpdateThatFails: the previous version keeps serving, also with the next agent, until a generation succeeds.
func TestUpdateThatFails(t *testing.T) {
	f := newFaked(t)
	before := f.up(t, startFirst("web"))["cara-p.a"]
	missing := f.watchEndpoint(t)
	same := func(what string) {
		t.Helper()
		if c := f.containers(t)["cara-p.a"]; c.ID != before.ID || !c.StartedAt.Equal(before.StartedAt) || c.State != engine.StateRunning {
			t.Fatalf("%s: %+v, before %+v", what, c, before)
		}
	}
	failed := func(what string) {
		t.Helper()
		p := f.wait(t, "p", reason(api.ReasonUpdateFailed))
		same(what)
		message := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady).GetMessage()
		for _, words := range []string{"the update of service a failed, and the previous version keeps serving", "exited with code 3", "line 2 of 2"} {
			if !strings.Contains(message, words) {
				t.Errorf("%s: message lacks %q:\n%s", what, words, message)
			}
		}
		if phase := p.GetStatus().GetPhase(); phase != api.PhaseScheduled && phase != api.PhaseRunning {
			t.Errorf("%s: the project is %s", what, phase)
		}
		waitUntil(t, func() bool { return f.containers(t)["cara-p.a.2"].State == engine.StateExited })
	}
	f.put("p", startFirst("job", "-lines", "2", "-exit", "3"))
	failed("an update")
	f.edit("p", func(p *carav1.Project) {
		p.Status.RestartToken, p.Status.RestartServices = "t1", []string{"a"}
		p.Status.Conditions = nil
	})
	failed("a retry")
	f.stop()
	starts, reports := f.engine.Calls("StartContainer"), f.reported()
	f.run(t)
	waitUntil(t, func() bool { return f.reported() > reports })
	failed("another agent")
	if again := f.engine.Calls("StartContainer"); again != starts {
		t.Errorf("another agent tried the update that had failed again: %d starts", again-starts)
	}
	if missing.Load() {
		t.Error("the service had no endpoint for a while")
	}
	f.put("p", startFirst("web:2"))
	f.wait(t, "p", phase(api.PhaseRunning))
	waitUntil(t, func() bool { c := f.containers(t); return len(c) == 1 && c["cara-p.a.2"].Image == "web:2" })
	f.put("p", startFirst("web"))
	f.wait(t, "p", phase(api.PhaseRunning))
	waitUntil(t, func() bool { c := f.containers(t); return len(c) == 1 && c["cara-p.a"].Image == "web" })
}

// TestPreviousThatCannotBeKeptUp: if the update has failed and the previous container fails too, the project fails.
func TestPreviousThatCannotBeKeptUp(t *testing.T) {
	f := newFaked(t)
	before := f.up(t, startFirst("job", "-after", "1h"))["cara-p.a"]
	f.put("p", startFirst("job", "-exit", "3"))
	f.wait(t, "p", reason(api.ReasonUpdateFailed))
	kills := 0
	project := func() *carav1.Project {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.projects["p"]
	}
	waitUntil(t, func() bool {
		if c := f.containers(t)["cara-p.a"]; c.ID == before.ID && c.State == engine.StateRunning && kills < 6 {
			f.engine.Kill(c.ID)
			kills++
		}
		return project().GetStatus().GetPhase() == api.PhaseFailed
	})
	if c := api.FindCondition(project().GetStatus().GetConditions(), api.CondPhase); !strings.Contains(c.GetMessage(), "cannot be kept up") || kills < 6 {
		t.Errorf("after %d kills: %v", kills, c)
	}
}

// TestAgentEndsInAnUpdate: at whichever engine call the agent is killed, the next agent finishes the update.
func TestAgentEndsInAnUpdate(t *testing.T) {
	for n := range int32(5) {
		t.Run(fmt.Sprint("call ", n), func(t *testing.T) {
			f := newFaked(t)
			f.up(t, startFirst("web"))
			missing := f.watchEndpoint(t)
			var calls atomic.Int32
			var dead atomic.Bool
			f.engine.Fault(func(call string) error {
				changes := call == "CreateContainer" || call == "StartContainer" || call == "StopContainer" || call == "RemoveContainer"
				if changes && calls.Add(1) > n {
					dead.Store(true)
				}
				if dead.Load() {
					return engine.ErrUnavailable
				}
				return nil
			})
			f.put("p", startFirst("web:2"))
			if n < 4 { // it makes, starts, stops and removes one
				waitUntil(t, dead.Load)
			} else {
				f.wait(t, "p", phase(api.PhaseRunning))
			}
			if missing.Load() {
				t.Error("the service had no endpoint for a while")
			}
			f.stop()
			f.engine.Fault(nil)
			f.run(t)
			f.wait(t, "p", phase(api.PhaseRunning))
			waitUntil(t, func() bool { c := f.containers(t); return len(c) == 1 && c["cara-p.a.2"].State == engine.StateRunning })
		})
	}
}

// TestRetryThatComesToTheSame: the same report is sent again, because the server has discarded the first one.
func TestRetryThatComesToTheSame(t *testing.T) {
	f := newFaked(t)
	f.up(t, startFirst("web"))
	spec := startFirst("none")
	spec.Services[0].PullPolicy = api.PullNever
	f.put("p", spec)
	f.wait(t, "p", reason(api.ReasonUpdateFailed))
	f.edit("p", func(p *carav1.Project) { p.Status.RestartToken, p.Status.Conditions = "t1", nil })
	f.wait(t, "p", reason(api.ReasonUpdateFailed))
}
