package step

import (
	"testing"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestPullsNamed: the condition names the images that the project waits for, from the moment that the agent decides to pull them.
func TestPullsNamed(t *testing.T) {
	w, e := wantOf(&carav1.ProjectSpec{Services: []*carav1.Service{{Name: "db", Image: "db:1"}, {Name: "web", Image: "web:1"}}}), newWorld()
	for name, c := range map[string]struct {
		pulls map[string]Pull
		want  string
	}{
		"none has begun": {nil, "db:1; web:1"},
		"one runs":       {map[string]Pull{"web:1": {Running: true, Progress: engine.Progress{Ready: 1, Layers: 3}}}, "web:1: 1 of 3 layers, 0.0 of 0.0 MiB; db:1"},
	} {
		t.Run(name, func(t *testing.T) {
			e.memory.Pulls = c.pulls
			h := e.have(w)
			r := Report(w, h, Step(w, h, e.now), e.now)
			got := api.FindCondition(r.GetConditions(), api.CondImagesReady)
			if got.GetReason() != string(api.ReasonPulling) || got.GetMessage() != c.want {
				t.Errorf("%s: %s, want %s", got.GetReason(), got.GetMessage(), c.want)
			}
		})
	}
}
