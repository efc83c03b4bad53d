package step

import (
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestCompletedRunsOnce: migrate has completed, and somebody removed its container.
func TestCompletedRunsOnce(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(*Want, *Completion)
		state string // of the service
		want  string // of the next step
	}{
		"as it was":             {func(*Want, *Completion) {}, api.ServiceCompleted, ""},
		"another manifest":      {func(w *Want, _ *Completion) { w.RunHashes["migrate"] = "v1:new" }, api.ServiceWaiting, "CreateContainer migrate"},
		"another digest":        {func(w *Want, c *Completion) { w.Spec.Services[0].Image, c.ImageDigest = "web@sha256:2", "web@sha256:1" }, api.ServiceWaiting, "Pull migrate"},
		"an operator's restart": {func(w *Want, _ *Completion) { w.askRestart("t1", "migrate") }, api.ServiceWaiting, "CreateContainer migrate"},
		"a restart of another":  {func(w *Want, _ *Completion) { w.askRestart("t1", "none") }, api.ServiceCompleted, ""},
		"a restart it ran under": {func(w *Want, c *Completion) {
			w.askRestart("t1", "migrate")
			c.Restart = "t1"
		}, api.ServiceCompleted, ""},
		"it is no job any more":      {func(w *Want, _ *Completion) { w.Spec.Services[0].RestartPolicy = api.RestartAlways }, api.ServiceWaiting, "CreateContainer migrate"},
		"another epoch on this node": {func(w *Want, _ *Completion) { w.Epoch++ }, api.ServiceWaiting, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := wantOf(&carav1.ProjectSpec{Services: []*carav1.Service{
				{Name: "migrate", Image: "job", RestartPolicy: api.RestartNever},
				{Name: "web", Image: "web", DependsOn: []*carav1.Dependency{{Service: "migrate", Condition: api.DependsCompleted}}},
			}})
			e := newWorld()
			e.images["web"], e.images["job"] = true, true
			converge(t, e, w)
			e.record = e.record.Next(w, e.have(w), nil, e.now)
			e.containers = e.containers[1:]
			if e.of("migrate") != nil || e.of("web") == nil {
				t.Fatalf("containers %+v", e.containers)
			}
			done := e.record.Completed["migrate"]
			c.edit(w, &done)
			e.record.Completed["migrate"] = done
			h := e.have(w)
			actions := Step(w, h, e.now)
			if got := kinds(actions); c.want != "" && got != c.want || c.want == "" && c.state == api.ServiceCompleted && got != "" {
				t.Errorf("does %q, want %q", got, c.want)
			}
			if got := Report(w, h, actions, e.now).Services[0].State; got != c.state {
				t.Errorf("the service is %s, want %s", got, c.state)
			}
		})
	}
}
