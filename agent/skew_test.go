package agent_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestEngineClockDiffers: a container that exits is restarted immediately, and a check has its full time, although the
// engine's clock is an hour ahead or behind.
func TestEngineClockDiffers(t *testing.T) {
	for name, skew := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			f := newFaked(t)
			f.engine.Skew(skew)
			f.cfg.ProbeEvery = 20 * time.Millisecond
			spec := services("web")
			spec.Services[0].Healthcheck = &carav1.Healthcheck{Exec: &carav1.ExecCheck{Command: []string{"job"}}, Interval: "10s", Retries: 3}
			var checks atomic.Int64
			f.engine.Fault(func(call string) error {
				if call == "Start" && checks.Add(1)%5 != 0 { // the first checks of each run fail
					return errors.New("not yet")
				}
				return nil
			})
			id := f.up(t, spec)["cara-p.a"].ID
			f.engine.Kill(id)
			f.wait(t, "p", func(p *carav1.Project) bool { return p.GetStatus().GetServices()[0].GetRestarts() == 1 })
			f.wait(t, "p", func(p *carav1.Project) bool {
				if p.GetStatus().GetPhase() == api.PhaseFailed {
					t.Fatalf("failed: %v", p.GetStatus().GetConditions())
				}
				return api.IsTrue(p.GetStatus().GetConditions(), api.CondReady)
			})
			if c := f.containers(t)["cara-p.a"]; c.State != engine.StateRunning {
				t.Errorf("the container: %+v", c)
			}
		})
	}
}
