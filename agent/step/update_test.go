package step

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// beside is a service in the middle of a start-first update: its container serves, and a successor runs beside it.
func (e *world) beside(w *Want, service string) (old, next *engine.Container) {
	w.RunHashes[service] = "v1:new"
	i := slices.IndexFunc(e.containers, func(c engine.Container) bool { return c.Labels[api.LabelService] == service })
	n := e.containers[i]
	n.ID, n.Name, n.CreatedAt, n.StartedAt = e.id(), successorName(w.Project, service), e.now, e.now
	n.Labels = w.containerLabels(w.Service(service))
	n.Networks = map[string]engine.Attachment{NetworkName(w.Project): {NetworkID: e.networks[0].ID, IP: "10.0.0.9"}}
	e.containers = append(e.containers, n)
	return &e.containers[i], &e.containers[len(e.containers)-1]
}

func TestStepStartFirst(t *testing.T) {
	check := &carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: 80}}
	late := func(e *world) { e.now = e.now.Add(10 * time.Second) }
	failed := &Failure{Service: "a", Reason: "CrashLoop", Message: "it crashed", Update: true}
	for name, c := range map[string]struct {
		spec func(a, b *carav1.Service) // on top of start-first
		edit func(*Want, *world)        // after the project is up
		want string                     // of the next step
		to   string                     // where the requests of a go: old or next
	}{
		"all is well": {edit: func(*Want, *world) {}, to: "old"},
		"another order alone is no change": {
			edit: func(w *Want, _ *world) { w.Spec.Services[0].Update.Order = api.UpdateStopFirst }, to: "old",
		},
		"a successor is made beside": {
			edit: func(w *Want, _ *world) { w.RunHashes["a"] = "v1:new" }, want: "CreateContainer a", to: "old",
		},
		"its image comes first": {
			edit: func(w *Want, _ *world) { w.Spec.Services[0].Image, w.RunHashes["a"] = "new", "v1:new" }, want: "Pull a", to: "old",
		},
		"an operator's restart, too": {
			edit: func(w *Want, _ *world) { w.askRestart("t1", "a") }, want: "CreateContainer a", to: "old",
		},
		"and limits that cannot be changed in place": {
			spec: func(a, _ *carav1.Service) { a.Resources = limited("1", "64Mi") },
			edit: func(w *Want, _ *world) { w.Spec.Services[0].Resources, w.Hashes["a"] = limited("1", ""), "v1:new" },
			want: "CreateContainer a", to: "old",
		},
		"limits that can are": {
			spec: func(a, _ *carav1.Service) { a.Resources = limited("1", "64Mi") },
			edit: func(w *Want, _ *world) { w.Spec.Services[0].Resources, w.Hashes["a"] = limited("2", "64Mi"), "v1:new" },
			want: "UpdateContainer a", to: "old",
		},
		"both are made, and start in order": {
			edit: func(w *Want, e *world) {
				for _, service := range []string{"a", "b"} {
					_, next := e.beside(w, service)
					next.State, next.StartedAt = engine.StateCreated, time.Time{}
				}
			}, want: "StartContainer a, Wait b", to: "old",
		},
		"the order counts the successor, not whether it is ready": {
			edit: func(w *Want, e *world) {
				e.beside(w, "a")
				_, next := e.beside(w, "b")
				next.State, next.StartedAt = engine.StateCreated, time.Time{}
			}, want: "Wait a, StartContainer b", to: "old",
		},
		"a dependency on health counts the successor": {
			spec: func(a, b *carav1.Service) {
				a.Healthcheck, b.DependsOn = check, []*carav1.Dependency{{Service: "a", Condition: api.DependsHealthy}}
			},
			edit: func(w *Want, e *world) {
				e.beside(w, "a")
				_, next := e.beside(w, "b")
				next.State, next.StartedAt, e.warm = engine.StateCreated, time.Time{}, time.Second
			}, want: "Wait a, Wait b", to: "old",
		},
		"one without a check has to prove itself": {
			edit: func(w *Want, e *world) { e.beside(w, "a") }, want: "Wait a", to: "old",
		},
		"and takes over then": {
			edit: func(w *Want, e *world) { e.beside(w, "a"); late(e) }, want: "DeleteContainer a", to: "next",
		},
		"one that is not healthy waits, however long": {
			spec: func(a, _ *carav1.Service) { a.Healthcheck = check },
			edit: func(w *Want, e *world) { e.beside(w, "a"); late(e); e.warm = time.Minute }, want: "Wait a", to: "old",
		},
		"a healthy one takes over at once": {
			spec: func(a, _ *carav1.Service) { a.Healthcheck = check },
			edit: func(w *Want, e *world) { e.beside(w, "a") }, want: "DeleteContainer a", to: "next",
		},
		"one that crashed once has to stay up longer": {
			spec: func(a, _ *carav1.Service) { a.Healthcheck = check },
			edit: func(w *Want, e *world) {
				e.beside(w, "a")
				e.memory.Restarts["a"] = Restarts{Row: 2, Recent: []time.Time{e.now}}
			}, want: "Wait a", to: "old",
		},
		"one that crashes is started again": {
			edit: func(w *Want, e *world) { e.beside(w, "a"); e.exit(2, 1) }, want: "RestartContainer a", to: "old",
		},
		"one that crashes again and again has failed": {
			edit: func(w *Want, e *world) {
				e.beside(w, "a")
				e.exit(2, 1)
				e.memory.Restarts["a"] = Restarts{Row: 5, Recent: slices.Repeat([]time.Time{e.now}, 5)}
			}, want: "Fail a", to: "old",
		},
		"one that is never healthy has failed, also where the project runs": {
			spec: func(a, _ *carav1.Service) { a.Healthcheck = check },
			edit: func(w *Want, e *world) { e.beside(w, "a"); e.broken["a"], w.Phase = "sick", api.PhaseRunning }, want: "Fail a", to: "old",
		},
		"one that must not end has failed": {
			spec: func(a, _ *carav1.Service) { a.RestartPolicy = api.RestartNever },
			edit: func(w *Want, e *world) { e.beside(w, "a"); e.exit(2, 1) }, want: "Fail a", to: "old",
		},
		"one that ended well has taken over": {
			spec: func(a, _ *carav1.Service) { a.RestartPolicy = api.RestartNever },
			edit: func(w *Want, e *world) { e.beside(w, "a"); e.exit(2, 0) }, want: "DeleteContainer a",
		},
		"an image that is refused has failed": {
			edit: func(w *Want, e *world) {
				w.Spec.Services[0].Image, w.RunHashes["a"] = "new", "v1:new"
				e.memory.Pulls["new"] = Pull{Err: "no such image", Final: true}
			}, want: "Fail a", to: "old",
		},
		"a newer generation takes the half-made one away first": {
			edit: func(w *Want, e *world) { e.beside(w, "a"); late(e); w.RunHashes["a"] = "v1:newer" }, want: "DeleteContainer a", to: "old",
		},
		"one that was taken over from does not come back with a newer generation": {
			edit: func(w *Want, e *world) {
				old, _ := e.beside(w, "a")
				late(e)
				e.leaving, w.RunHashes["a"] = map[string]time.Time{old.ID: e.now}, "v1:newer"
			}, want: "DeleteContainer a", to: "next",
		},
		"the old one is started again while it is needed": {
			edit: func(w *Want, e *world) { e.beside(w, "a"); e.exit(0, 1) }, want: "RestartContainer a, Wait a",
		},
		"not by an agent that has just begun and does not know yet": {
			spec: func(a, _ *carav1.Service) { a.Healthcheck = check },
			edit: func(w *Want, e *world) { e.beside(w, "a"); e.exit(0, 143); e.unprobed = true }, want: "Wait a",
		},
		"paused by hand, both": {
			edit: func(w *Want, e *world) {
				old, next := e.beside(w, "a")
				old.State, next.State = engine.StatePaused, engine.StatePaused
			}, want: "UnpauseContainer a, UnpauseContainer a",
		},
		"where none runs it is replaced as ever": {
			edit: func(w *Want, e *world) { e.exit(0, 1); w.RunHashes["a"] = "v1:new" }, want: "DeleteContainer a",
		},
		"what left the manifest goes last": {
			edit: func(w *Want, e *world) {
				e.beside(w, "a")
				w.Spec.Services = w.Spec.Services[:1]
			}, want: "Wait a", to: "old",
		},
		"a failed successor is stopped": {
			edit: func(w *Want, e *world) { e.beside(w, "a"); late(e); e.memory.Update = failed }, want: "StopContainer a", to: "old",
		},
		"and kept": {
			edit: func(w *Want, e *world) { e.beside(w, "a"); e.exit(2, 1); e.memory.Update = failed }, to: "old",
		},
		"unless it would seem to have ended well": {
			spec: func(a, _ *carav1.Service) { a.RestartPolicy = api.RestartOnFailure },
			edit: func(w *Want, e *world) { e.beside(w, "a"); e.memory.Update = failed }, want: "DeleteContainer a", to: "old",
		},
		"another successor goes": {
			edit: func(w *Want, e *world) { e.beside(w, "a"); e.exit(2, 1); e.beside(w, "b"); e.memory.Update = failed },
			want: "DeleteContainer b", to: "old",
		},
		"nothing more is replaced, whatever its order": {
			spec: func(_, b *carav1.Service) { b.Update = nil },
			edit: func(w *Want, e *world) {
				e.beside(w, "a")
				e.exit(2, 1)
				w.RunHashes["b"], e.memory.Update = "v1:new", failed
			}, to: "old",
		},
		"but what is half replaced is made": {
			spec: func(_, b *carav1.Service) { b.Update = nil },
			edit: func(w *Want, e *world) {
				e.beside(w, "a")
				e.exit(2, 1)
				e.containers, e.memory.Update = slices.Delete(e.containers, 1, 2), failed
			}, want: "CreateContainer b", to: "old",
		},
		"the old one is kept up after that": {
			edit: func(w *Want, e *world) { e.beside(w, "a"); e.exit(2, 1); e.exit(0, 1); e.memory.Update = failed },
			want: "RestartContainer a",
		},
		"by limits of its own": {
			edit: func(w *Want, e *world) {
				e.beside(w, "a")
				e.exit(2, 1)
				e.exit(0, 1)
				e.memory.Restarts["a"] = Restarts{Row: 5, Recent: slices.Repeat([]time.Time{e.now}, 5)}
				e.memory.Update = failed
			}, want: "RestartContainer a",
		},
		"until it cannot be kept up": {
			edit: func(w *Want, e *world) {
				old, _ := e.beside(w, "a")
				e.exit(2, 1)
				e.exit(0, 1)
				e.memory.Restarts[old.ID] = Restarts{Row: 5, Recent: slices.Repeat([]time.Time{e.now}, 5)}
				e.memory.Update = failed
			}, want: "Fail a",
		},
		"or is gone": {
			edit: func(w *Want, e *world) {
				e.beside(w, "a")
				e.exit(2, 1)
				e.containers, e.memory.Update = e.containers[1:], failed
			}, want: "Fail a",
		},
		"an agent that forgot tries the failed one again": {
			edit: func(w *Want, e *world) { e.beside(w, "a"); e.exit(2, 1) }, want: "RestartContainer a", to: "old",
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := &carav1.Service{Name: "a", Image: "web"}, &carav1.Service{Name: "b", Image: "web"}
			for _, s := range []*carav1.Service{a, b} {
				s.Update = &carav1.Update{Order: api.UpdateStartFirst}
			}
			if c.spec != nil {
				c.spec(a, b)
			}
			w, e := wantOf(&carav1.ProjectSpec{Services: []*carav1.Service{a, b}}), newWorld()
			e.images["web"] = true
			converge(t, e, w)
			e.now = e.now.Add(time.Minute)
			c.edit(w, e)
			h := e.have(w)
			actions := Step(w, h, e.now)
			if got := kinds(actions); got != c.want {
				t.Errorf("does %q, want %q", got, c.want)
			}
			want := map[string]string{"old": "10.0.0.2", "next": "10.0.0.9"}[c.to]
			if got := Routable(w, h, actions, e.now)["a"]; got != want {
				t.Errorf("requests go to %q, want %q (%s)", got, want, c.to)
			}
			if len(actions) > 0 && actions[0].Kind == KindFail && actions[0].Failure.Update == (c.to == "") {
				t.Errorf("failure %+v", actions[0].Failure)
			}
		})
	}
}

// TestRoutableHealth: an outdated container is judged by its own check, if that is known.
func TestRoutableHealth(t *testing.T) {
	w, e := wantOf(&carav1.ProjectSpec{Services: []*carav1.Service{{
		Name: "a", Image: "web", Healthcheck: &carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: 80}},
	}}}), newWorld()
	converge(t, e, w)
	id := e.containers[0].ID
	for name, c := range map[string]struct {
		outdated bool
		health   *Health
		want     bool
	}{
		"as wanted, healthy":    {false, &Health{State: api.HealthHealthy}, true},
		"as wanted, unhealthy":  {false, &Health{State: api.HealthUnhealthy}, false},
		"as wanted, not probed": {false, nil, false},
		"outdated, healthy":     {true, &Health{State: api.HealthHealthy}, true},
		"outdated, unhealthy":   {true, &Health{State: api.HealthUnhealthy}, false},
		"outdated, not probed":  {true, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := e.have(w)
			h.Health = map[string]Health{}
			if c.health != nil {
				h.Health[id] = *c.health
			}
			want := *w
			if c.outdated {
				want.RunHashes = map[string]string{"a": "v1:new"}
			}
			_, got := Routable(&want, h, nil, e.now)["a"]
			if got != c.want {
				t.Errorf("routable: %v, want %v", got, c.want)
			}
		})
	}
}

func TestReportOfAnUpdate(t *testing.T) {
	w, e := wantOf(&carav1.ProjectSpec{Services: []*carav1.Service{{
		Name: "a", Image: "web:2", Update: &carav1.Update{Order: api.UpdateStartFirst},
	}}}), newWorld()
	converge(t, e, w)
	e.now = e.now.Add(time.Minute)
	e.containers[0].Image = "web:1"
	old, next := e.beside(w, "a")
	oldID, nextID := old.ID, next.ID
	report := func(t *testing.T) (container, image, phase, reason string) {
		h := e.have(w)
		r := Report(w, h, Step(w, h, e.now), e.now)
		return r.Services[0].ContainerId, r.Services[0].Image, r.Phase, api.FindCondition(r.Conditions, api.CondReady).GetReason()
	}
	type said struct{ Container, Image, Phase, Reason string }
	check := func(what string, want said) {
		t.Helper()
		var got said
		got.Container, got.Image, got.Phase, got.Reason = report(t)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("while the successor starts", said{oldID, "web:1", "", "Updating"})
	e.memory.Update = &Failure{Service: "a", Message: "no"}
	check("once it has failed", said{oldID, "web:1", "", api.ReasonUpdateFailed})
	e.memory.Update = nil
	e.now = e.now.Add(10 * time.Second)
	check("once it is ready", said{nextID, "web:2", api.PhaseRunning, "ServicesUp"})
}
