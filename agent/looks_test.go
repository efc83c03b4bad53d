package agent_test

import (
	"testing"

	"github.com/caravanserai/cara/api"
)

// TestLooksHoldWithinATurn: the number of engine calls for a project's start grows with its services, not with their square.
func TestLooksHoldWithinATurn(t *testing.T) {
	f := newFaked(t)
	engine := newTimed(f.engine)
	f.cfg.Engine = engine
	f.run(t)
	images := make([]string, 40)
	for i := range images {
		images[i] = "web"
	}
	spec := services(images...)
	for i, s := range spec.Services {
		s.Name = "s" + string(rune('a'+i/26)) + string(rune('a'+i%26))
	}
	f.put("p", spec)
	f.wait(t, "p", phase(api.PhaseRunning))
	engine.mu.Lock()
	inspects := engine.calls["InspectContainer"]
	engine.mu.Unlock()
	if inspects > 10*len(images) { // each is inspected when it has started, and again by the looks that events ask for
		t.Errorf("%d services cost %d inspections; with one of each at each pass they are %d", len(images), inspects, len(images)*len(images)/2)
	}
}
