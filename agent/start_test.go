package agent_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// TestContainerThatTheEngineLostWhileStartingIt: an engine that was killed during a start refuses every later start of that
// container, but starts a new one. That must wait while a process of the first one runs.
func TestContainerThatTheEngineLostWhileStartingIt(t *testing.T) {
	for name, test := range map[string]struct {
		refusal       error
		made, removed int
	}{
		"it is stuck": {errors.New("task cf7d9dae21cd: already exists"), 2, 1},
		"it runs":     {fmt.Errorf("%w: id already in use", engine.ErrLost), 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFaked(t)
			var refused atomic.Bool
			f.engine.Fault(func(call string) error {
				if call == "StartContainer" && refused.CompareAndSwap(false, true) {
					return test.refusal
				}
				return nil
			})
			f.run(t)
			f.put("p", services("web"))
			f.wait(t, "p", phase(api.PhaseRunning))
			if made, removed := f.engine.Calls("CreateContainer"), f.engine.Calls("RemoveContainer"); made != test.made || removed != test.removed {
				t.Errorf("%d containers were made and %d removed, want %d and %d", made, removed, test.made, test.removed)
			}
		})
	}
}

// TestContainerThatTheEngineLostWhileRestartingIt: only a container that the engine will never start again is replaced.
func TestContainerThatTheEngineLostWhileRestartingIt(t *testing.T) {
	for name, test := range map[string]struct {
		refusal       error
		made, removed int
	}{
		"never again": {fmt.Errorf("%w: task cf7d9dae21cd: already exists", engine.ErrStuck), 2, 1},
		"it runs":     {fmt.Errorf("%w: id already in use", engine.ErrLost), 1, 0},
		"this time":   {errors.New("no such device"), 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFaked(t)
			f.run(t)
			f.put("p", services("web"))
			f.wait(t, "p", phase(api.PhaseRunning))
			var refused atomic.Bool
			f.engine.Fault(func(call string) error {
				if call == "StartContainer" && refused.CompareAndSwap(false, true) {
					return test.refusal
				}
				return nil
			})
			f.engine.Kill(f.containers(t)["cara-p.a"].ID)
			waitUntil(t, func() bool { return f.engine.Calls("StartContainer") == 3 }) // the first one, the refused one, one more
			f.wait(t, "p", phase(api.PhaseRunning))
			if made, removed := f.engine.Calls("CreateContainer"), f.engine.Calls("RemoveContainer"); made != test.made || removed != test.removed {
				t.Errorf("%d containers were made and %d removed, want %d and %d", made, removed, test.made, test.removed)
			}
		})
	}
}
