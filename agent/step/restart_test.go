package step

import (
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// pair is a project of two services, a and b, that is up and served.
func pair(t *testing.T, change func(a *carav1.Service)) (*Want, *world) {
	t.Helper()
	a := &carav1.Service{Name: "a", Image: "web"}
	if change != nil {
		change(a)
	}
	w := wantOf(&carav1.ProjectSpec{Services: []*carav1.Service{a, {Name: "b", Image: "web"}}})
	return w, served(t, w)
}

// decide is what Step decides now, and what the agent puts down before it acts.
func (e *world) decide(w *Want) []Action {
	actions := Step(w, e.have(w), e.now)
	e.record = e.record.Next(w, e.have(w), actions, e.now)
	return actions
}

func TestRestartInPlace(t *testing.T) {
	for name, c := range map[string]struct {
		service func(*carav1.Service)
		edit    func(*Want, *world)
		want    string // of the step after an operator asked to restart a
	}{
		"a running container":         {want: "StopContainer a"},
		"a paused one":                {edit: func(_ *Want, e *world) { e.of("a").State = engine.StatePaused }, want: "StopContainer a"},
		"start-first goes on serving": {service: func(a *carav1.Service) { a.Update = &carav1.Update{Order: api.UpdateStartFirst} }, want: "CreateContainer a"},
		"an image that is pulled anew": {
			service: func(a *carav1.Service) { a.PullPolicy = api.PullAlways }, want: "Pull a",
		},
		"a manifest that changed, too": {edit: func(w *Want, _ *world) { w.RunHashes["a"] = "v1:new" }, want: "RenameContainer a"},
		"a Secret that changed with the rollout Manual": {
			service: func(a *carav1.Service) {
				a.Env = []*carav1.EnvVar{{Name: "P", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "s", Key: "k"}}}}
			},
			edit: func(w *Want, e *world) {
				e.of("a").Labels[labelSecrets] = "s/k=1"
				w.ManualSecrets, w.SecretVersions, w.Secrets = true, map[string]string{"s/k": "2"}, map[string][]byte{"s/k": []byte("v")}
			},
			want: "RenameContainer a",
		},
		"one that has ended": {edit: func(_ *Want, e *world) { e.exit(0, 1) }, want: "DeleteContainer a"},
	} {
		t.Run(name, func(t *testing.T) {
			service := c.service
			w, e := pair(t, func(a *carav1.Service) {
				if service != nil && a.Env == nil {
					service(a)
				}
				a.Env = nil
			})
			if service != nil {
				service(w.Spec.GetServices()[0])
			}
			if c.edit != nil {
				c.edit(w, e)
			}
			w.askRestart("t1", "a")
			e.memory.Pulls = map[string]Pull{}
			if got := kinds(Step(w, e.have(w), e.now)); got != c.want {
				t.Errorf("does %q, want %q", got, c.want)
			}
		})
	}
}

// TestRestartInPlaceOnce: wherever the agent dies, the next one finishes the restart, and stops and starts the container
// once in all.
func TestRestartInPlaceOnce(t *testing.T) {
	for _, died := range []string{"before it stops", "after the stop", "after the start"} {
		t.Run(died, func(t *testing.T) {
			w, e := pair(t, nil)
			w.askRestart("t1", "a")
			id, stops, starts := e.of("a").ID, 0, 0
			do := func(actions []Action) {
				for _, a := range actions {
					if a.Kind == KindStopContainer {
						stops++
						e.leaving = map[string]time.Time{a.ID: e.now} // as the agent notes of each that it stops
					}
					if a.Kind == KindRestartContainer {
						starts++
					}
				}
				e.do(w, actions)
			}
			actions := e.decide(w)
			if died != "before it stops" {
				do(actions)
			}
			if died == "after the start" {
				do(e.decide(w))
			}
			e.memory = newWorld().memory // the next agent
			for range 10 {
				actions := e.decide(w)
				if len(actions) == 0 {
					break
				}
				do(actions)
			}
			if c := e.of("a"); c.ID != id || c.State != engine.StateRunning || stops != 1 || starts != 1 {
				t.Errorf("container %s %s after %d stops and %d starts; want %s running after one of each", c.ID, c.State, stops, starts, id)
			}
			if r := e.memory.Restarts["a"]; r.Total != 0 {
				t.Errorf("an operator's restart counts as a failure: %+v", r)
			}
		})
	}
}

// TestTwoRestarts: a request to restart one service does not hide an earlier one of another service that was not acted on.
func TestTwoRestarts(t *testing.T) {
	w, e := pair(t, nil)
	before := map[string]time.Time{"a": e.of("a").StartedAt, "b": e.of("b").StartedAt}
	w.askRestart("t1", "a")
	w.askRestart("t2", "b")
	for range 20 {
		actions := e.decide(w)
		if len(actions) == 0 {
			break
		}
		e.do(w, actions)
	}
	for service, started := range before {
		if !e.of(service).StartedAt.After(started) {
			t.Errorf("service %s was not restarted", service)
		}
	}
}
