package agent_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

func limitedTo(image, memory string, pids int32) *carav1.ProjectSpec {
	return &carav1.ProjectSpec{Services: []*carav1.Service{
		{Name: "a", Image: image, Args: []string{"-after", "1h"}, Resources: &carav1.Resources{Limits: &carav1.ResourceList{Memory: memory, Pids: pids}}},
		{Name: "b", Image: image, Args: []string{"-after", "1h"}},
	}}
}

// changesLimits brings a project up, changes a limit and takes it off again.
func changesLimits(t *testing.T, r *rig, image string) {
	t.Helper()
	project := name(t)
	containers := func() map[string]engine.Container {
		var list []engine.Container
		waitUntil(t, func() (done bool) { // what was replaced may still be on its way out
			var err error
			if list, err = r.cfg.Engine.ListContainers(t.Context(), map[string]string{api.LabelProject: project}); err != nil {
				t.Fatal(err)
			}
			return len(list) == 2
		})
		out := map[string]engine.Container{}
		for _, c := range list {
			c, err := r.cfg.Engine.InspectContainer(t.Context(), c.ID)
			if err != nil {
				t.Fatal(err)
			}
			out[c.Labels[api.LabelService]] = c
		}
		return out
	}
	r.run(t)
	r.put(project, limitedTo(image, "64Mi", 0))
	r.wait(t, project, phase(api.PhaseRunning))
	want := containers()
	if want["a"].Limits.PIDs != 4096 || want["b"].Limits.PIDs != 4096 {
		t.Errorf("limits where the manifest has none: %+v and %+v", want["a"].Limits, want["b"].Limits)
	}
	r.put(project, limitedTo(image, "128Mi", 100))
	p := r.wait(t, project, phase(api.PhaseRunning))
	if got, want := p.GetStatus().GetServices()[0].GetSpecHash(), api.ServiceHash(p.GetSpec(), "a"); got != want {
		t.Errorf("status says spec hash %s, want %s", got, want)
	}
	a := want["a"]
	a.Limits.Memory, a.Limits.PIDs = 128<<20, 100
	want["a"] = a
	if diff := cmp.Diff(want, containers()); diff != "" {
		t.Errorf("after a change of one limit (-want +got):\n%s", diff)
	}
	r.stop()
	r.run(t) // another agent finds nothing to do
	r.put(project, limitedTo(image, "", 100))
	r.wait(t, project, phase(api.PhaseRunning))
	got := containers()
	if got["a"].ID == a.ID || got["a"].Limits.Memory != 0 || got["b"].ID != want["b"].ID {
		t.Errorf("after a limit was taken off: %+v", got)
	}
}

func TestChangedLimits(t *testing.T) { changesLimits(t, newFaked(t).rig, "job") }

func TestRealChangedLimits(t *testing.T) {
	t.Parallel()
	changesLimits(t, newReal(t).rig, testimage.Job)
}
