package agent_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A node whose network pool is used up gets room again when others go: the project waits and says why, however often
// it was tried, and that does not count against a failure of another kind.
func TestNoRoomForANetwork(t *testing.T) {
	f := newFaked(t)
	var tries atomic.Int64
	f.engine.Fault(func(call string) error {
		switch n := tries.Load(); {
		case call != "CreateNetwork":
			return nil
		case n < int64(f.cfg.Restart.Limit)+2:
			tries.Add(1)
			return fmt.Errorf("create network: %w: every subnet is taken", agent.ErrNoRoom)
		case n == int64(f.cfg.Restart.Limit)+2:
			tries.Add(1)
			return errors.New("something odd")
		}
		return nil
	})
	f.run(t)
	f.put("p", services("web"))
	p := f.wait(t, "p", func(p *carav1.Project) bool {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady)
		return strings.Contains(c.GetMessage(), "every subnet is taken")
	})
	if p.Status.Phase != api.PhaseScheduled {
		t.Errorf("phase %s while there is no room", p.Status.Phase)
	}
	p = f.wait(t, "p", func(p *carav1.Project) bool {
		return p.GetStatus().GetPhase() == api.PhaseRunning || p.GetStatus().GetPhase() == api.PhaseFailed
	})
	if p.Status.Phase != api.PhaseRunning {
		t.Errorf("failed: %v", p.Status.Conditions)
	}
}
