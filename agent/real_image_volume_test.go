package agent_test

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestRealImageVolume: a project whose image declares a volume runs, and a condition says that the volume's data is lost
// with the container, until something is mounted there.
func TestRealImageVolume(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	image := r.imageWith(t, "VOLUME /var/lib/db")
	r.run(t)
	project := uniqueName("volume")
	spec := func() *carav1.ProjectSpec {
		return &carav1.ProjectSpec{
			Volumes:  []*carav1.ProjectVolume{{Name: "data"}},
			Services: []*carav1.Service{{Name: "db", Image: image, Command: []string{"sleep", "1000"}, StopSignal: "SIGKILL"}},
		}
	}
	r.put(project, spec())
	p := r.wait(t, project, phase(api.PhaseRunning))
	c := api.FindCondition(p.GetStatus().GetConditions(), api.CondUnmountedVolume)
	if c.GetStatus() != api.StatusTrue || !strings.Contains(c.GetMessage(), "service db") || !strings.Contains(c.GetMessage(), "/var/lib/db") {
		t.Errorf("condition %v", c)
	}
	if !api.IsTrue(p.GetStatus().GetConditions(), api.CondReady) {
		t.Errorf("the warning keeps the project from being ready: %v", p.GetStatus().GetConditions())
	}
	mounted := spec()
	mounted.Services[0].VolumeMounts = []*carav1.VolumeMount{{Name: "data", MountPath: "/var/lib/db"}}
	r.edit(project, func(p *carav1.Project) { // the server takes the condition away that a report has no more
		p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), api.CondUnmountedVolume)
	})
	r.put(project, mounted)
	p = r.wait(t, project, func(p *carav1.Project) bool {
		return p.GetStatus().GetPhase() == api.PhaseRunning && p.GetStatus().GetObservedGeneration() == 2
	})
	if c := api.FindCondition(p.GetStatus().GetConditions(), api.CondUnmountedVolume); c != nil {
		t.Errorf("with a mount there: %v", c)
	}
	r.terminate(project)
	r.wait(t, project, gone)
}
