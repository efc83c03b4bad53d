package agent_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/caravanserai/cara/api"
)

// TestContainerThatTheEngineLostWhileStartingIt: an engine that went down during a start refuses every later start of that
// container, but starts a new one.
func TestContainerThatTheEngineLostWhileStartingIt(t *testing.T) {
	f := newFaked(t)
	var refused atomic.Bool
	f.engine.Fault(func(call string) error {
		if call == "StartContainer" && refused.CompareAndSwap(false, true) {
			return errors.New("task cf7d9dae21cd: already exists")
		}
		return nil
	})
	f.run(t)
	f.put("p", services("web"))
	f.wait(t, "p", phase(api.PhaseRunning))
	if made, removed := f.engine.Calls("CreateContainer"), f.engine.Calls("RemoveContainer"); made != 2 || removed != 1 {
		t.Errorf("%d containers were made and %d removed, want 2 and 1", made, removed)
	}
}
