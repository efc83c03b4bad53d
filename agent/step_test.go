package agent

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// converge steps until there is nothing left to do, and watches that nothing which is as wanted is harmed.
func converge(t *testing.T, e *world, w *Want) {
	t.Helper()
	for range 200 {
		h := e.have(w)
		actions := Step(w, h, e.now)
		unharmed(t, w, h, actions, e.now)
		if len(actions) == 0 {
			arrived(t, e, w)
			return
		}
		e.do(w, actions)
	}
	t.Fatalf("not there after 200 steps; wants\n%v\nhas\n%+v\nwould do\n%v", w.Spec, e.have(w), Step(w, e.have(w), e.now))
}

// unharmed: nothing is done to a container that is as wanted, and nobody acts on what is not there.
func unharmed(t *testing.T, w *Want, h *Have, actions []Action, now time.Time) {
	t.Helper()
	s := &step{w: w, h: h, now: now}
	for _, a := range actions {
		c := h.find(a.ID)
		if a.Kind == KindCreateContainer {
			lonely(t, s, a)
		}
		if a.Kind == KindRemoveNetwork || a.Kind == KindWait || a.ID == "" {
			continue
		}
		if c.ID == "" {
			t.Fatalf("%v names a container that is not there", a)
		}
		svc := w.service(c.Labels[api.LabelService])
		if w.Remove || h.Memory.Failure != nil || svc == nil || !w.sameAssignment(c.Labels) {
			continue
		}
		at, attached := c.Networks[networkName(w.Project)]
		if keep := s.keeper(); keep != nil && at.NetworkID != keep.ID || keep != nil && !w.sameAssignment(keep.Labels) {
			continue // it is on a network of another assignment, or on a second one
		}
		if h.Memory.Update != nil && s.previous(svc) != nil && s.outdated(svc, &c) == "" {
			continue // its own update failed, or another one's
		}
		if own := s.container(svc.GetName()); own.ID == c.ID && s.outdated(svc, &c) == "" && !s.wrongLimits(svc, &c) && c.State == StateRunning && attached {
			t.Fatalf("%v: the container is as wanted", a)
		}
		if a.Kind == KindDeleteContainer || a.Kind == KindStopContainer {
			succeeded(t, s, svc, c, a)
		}
	}
}

// lonely: a container is only made where none is as wanted, and at most one that is not.
func lonely(t *testing.T, s *step, a Action) {
	t.Helper()
	others := 0
	for _, c := range s.h.Containers {
		if c.Name == a.Name {
			t.Fatalf("%v: %s has the name", a, c.ID)
		}
		if c.Labels[api.LabelService] == a.Service && s.w.sameAssignment(c.Labels) {
			others++
		}
	}
	if svc := s.w.service(a.Service); others > 1 || s.best(svc, true) != nil {
		t.Fatalf("%v: the service has %d containers: %+v", a, others, s.h.Containers)
	}
}

// succeeded: a container that serves start-first, though it is not as wanted any more, only goes once another one is
// ready that is.
func succeeded(t *testing.T, s *step, svc *carav1.Service, c Container, a Action) {
	t.Helper()
	if svc.GetUpdate().GetOrder() != api.UpdateStartFirst || s.outdated(svc, &c) == "" || !up(c) {
		return
	}
	for _, o := range s.h.Containers {
		if o.Labels[api.LabelService] != svc.GetName() || !s.w.sameAssignment(o.Labels) || o.ID == c.ID {
			continue
		}
		switch outdated := s.outdated(svc, &o) != ""; {
		case outdated && up(o) && !o.CreatedAt.After(c.CreatedAt):
			return // c was a successor itself
		case outdated || s.h.Memory.Update != nil && s.h.Memory.Update.Service == svc.GetName():
		case s.done(svc, &o):
			return
		case o.State == StateRunning && svc.GetHealthcheck() != nil && s.h.Health[o.ID].State == HealthHealthy:
			return
		case o.State == StateRunning && svc.GetHealthcheck() == nil && s.now.Sub(o.StartedAt) >= 5*time.Second:
			return
		}
	}
	t.Fatalf("%v: nothing takes its place: %+v", a, s.h.Containers)
}

// arrived: the engine is as wanted, whole and with nothing beside it.
func arrived(t *testing.T, e *world, w *Want) {
	t.Helper()
	if e.memory.Failure != nil {
		for _, c := range e.containers {
			if up(c) {
				t.Fatalf("failed (%v), and %s still runs", e.memory.Failure, c.Name)
			}
		}
		return
	}
	if w.Remove {
		if len(e.containers)+len(e.networks)+len(e.volumes) > 0 {
			t.Fatalf("left: %v %v %v", e.containers, e.networks, e.volumes)
		}
		return
	}
	if e.memory.Update != nil {
		held(t, e, w)
		return
	}
	if len(e.containers) != len(w.Spec.GetServices()) || len(e.networks) != 1 || len(e.volumes) != len(w.Spec.GetVolumes()) {
		t.Fatalf("wants\n%v\nhas\n%+v", w.Spec, e.have(w))
	}
	s := &step{w: w, h: e.have(w), now: e.now}
	for _, svc := range w.Spec.GetServices() {
		if !s.isUp(svc) {
			t.Fatalf("service %s is not up: %+v", svc.GetName(), e.containers)
		}
	}
	if r := Report(w, e.have(w), nil, e.now); r.Phase != api.PhaseRunning {
		t.Fatalf("the report says %v", r)
	}
}

// held: an update failed, and what was there before is kept up.
func held(t *testing.T, e *world, w *Want) {
	t.Helper()
	h := e.have(w)
	s := &step{w: w, h: h, now: e.now}
	for _, svc := range w.Spec.GetServices() {
		c := s.serving(svc)
		if c == nil || c.State != StateRunning && !s.done(svc, c) && s.blocked(svc) == "" {
			t.Fatalf("service %s does not serve: %+v", svc.GetName(), e.containers)
		}
	}
	for _, c := range e.containers {
		svc := w.service(c.Labels[api.LabelService])
		if svc != nil && up(c) && s.serving(svc).ID != c.ID {
			t.Fatalf("%s of %s runs beside %s", c.ID, svc.GetName(), s.serving(svc).ID)
		}
	}
	r := Report(w, h, nil, e.now)
	ready := api.FindCondition(r.Conditions, api.CondReady)
	if r.Phase != "" || ready.GetReason() != api.ReasonUpdateFailed || !strings.Contains(ready.GetMessage(), "service "+e.memory.Update.Service) {
		t.Fatalf("the report says %v", r)
	}
	serving := s.serving(w.service(e.memory.Update.Service))
	if got, want := routable(w, h, nil, e.now)[e.memory.Update.Service], serving.Networks[networkName(w.Project)].IP; got != want {
		t.Fatalf("requests of service %s go to %q, want %q: %+v", e.memory.Update.Service, got, want, e.containers)
	}
}

func TestStepReachesWhatIsWanted(t *testing.T) {
	for seed := range uint64(3000) {
		property(t, seed)
	}
}

func property(t *testing.T, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	w, e := wanted(r), newWorld()
	e.scramble(r, w)
	if r.IntN(4) == 0 {
		e.breakOne(r, w)
	}
	w.Remove = r.IntN(8) == 0
	converge(t, e, w)
	if e.memory.Failure != nil || w.Remove {
		return
	}
	// and again after somebody meddled
	c := &e.containers[r.IntN(len(e.containers))]
	switch r.IntN(4) {
	case 0:
		c.State, c.ExitCode, c.FinishedAt = StateExited, 137, e.now
	case 1:
		c.State = StateRemoving
	case 2:
		c.Labels[labelRunHash] = "v1:old"
	case 3:
		e.networks, c.Networks = nil, nil
	}
	converge(t, e, w)
	// and through some generations, each of which may come before the one before has arrived, and the agent may forget
	for range r.IntN(4) {
		if e.memory.Failure != nil {
			return
		}
		if r.IntN(4) > 0 {
			w = next(r, w)
		}
		clear(e.broken)
		if r.IntN(2) == 0 {
			e.breakOne(r, w)
		}
		e.forget()
		for range r.IntN(8) {
			h := e.have(w)
			actions := Step(w, h, e.now)
			unharmed(t, w, h, actions, e.now)
			e.do(w, actions)
		}
	}
	converge(t, e, w)
}

// next is the generation after w, with some services changed.
func next(r *rand.Rand, w *Want) *Want {
	n := *w
	n.Generation++
	n.RunHashes, n.Hashes = maps.Clone(w.RunHashes), maps.Clone(w.Hashes)
	for _, svc := range w.Spec.GetServices() {
		if r.IntN(2) == 0 {
			n.RunHashes[svc.GetName()] = fmt.Sprintf("v1:%d-%d", n.Generation, r.IntN(2))
			n.Hashes[svc.GetName()] = n.RunHashes[svc.GetName()]
		}
	}
	return &n
}

func (e *world) breakOne(r *rand.Rand, w *Want) {
	svc := w.Spec.GetServices()[r.IntN(len(w.Spec.GetServices()))]
	e.broken[svc.GetName()] = "crash"
	if svc.GetHealthcheck() != nil && r.IntN(2) == 0 {
		e.broken[svc.GetName()] = "sick"
	}
}

// forget is what a new agent, or a new rollout, remembers.
func (e *world) forget() {
	e.memory = Memory{Pulls: map[string]Pull{}, Restarts: map[string]Restarts{}, Tries: map[string]Try{}}
}

func FuzzStep(f *testing.F) {
	for seed := range uint64(16) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { property(t, seed) })
}

func kinds(actions []Action) string {
	var out []string
	for _, a := range actions {
		text := string(a.Kind)
		if a.Service != "" {
			text += " " + a.Service
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func TestStep(t *testing.T) {
	two := func(change ...func(a, b *carav1.Service)) *carav1.ProjectSpec {
		a, b := &carav1.Service{Name: "a", Image: "web"}, &carav1.Service{Name: "b", Image: "web"}
		for _, c := range change {
			c(a, b)
		}
		return &carav1.ProjectSpec{Services: []*carav1.Service{a, b}}
	}
	for name, c := range map[string]struct {
		spec *carav1.ProjectSpec
		edit func(*Want, *world) // after the project is up
		want string              // of the next step
	}{
		"all is well": {spec: two()},
		"network and containers side by side": {
			spec: two(), edit: func(_ *Want, e *world) { e.containers, e.networks = nil, nil },
			want: "CreateNetwork, CreateContainer a, CreateContainer b",
		},
		"list order is start order": {
			spec: two(), edit: func(_ *Want, e *world) {
				for i := range e.containers {
					e.containers[i].State, e.containers[i].StartedAt = StateCreated, time.Time{}
				}
			}, want: "StartContainer a, Wait b",
		},
		"with dependsOn, what depends on nothing starts": {
			spec: two(func(a, _ *carav1.Service) { a.DependsOn = []*carav1.Dependency{{Service: "b"}} }),
			edit: func(_ *Want, e *world) {
				for i := range e.containers {
					e.containers[i].State, e.containers[i].StartedAt = StateCreated, time.Time{}
				}
			}, want: "Wait a, StartContainer b",
		},
		"a pull and a create side by side": {
			spec: two(func(_, b *carav1.Service) { b.Image = "other" }), edit: func(_ *Want, e *world) {
				e.containers = nil
				delete(e.images, "other")
			}, want: "CreateContainer a, Pull b",
		},
		"a pull that runs is waited for": {
			spec: two(), edit: func(_ *Want, e *world) {
				e.containers, e.images, e.memory.Pulls["web"] = nil, nil, Pull{Running: true}
			}, want: "Wait a, Wait b",
		},
		"a registry's no is final": {
			spec: two(), edit: func(_ *Want, e *world) {
				e.containers, e.images, e.memory.Pulls["web"] = nil, nil, Pull{Err: "no such image", Final: true}
			}, want: "Fail a, Fail b",
		},
		"a changed service keeps running until its image is there": {
			spec: two(), edit: func(w *Want, e *world) {
				w.Spec.Services[1].Image, w.RunHashes["b"] = "new", "v1:new"
			}, want: "Pull b",
		},
		"only the changed one is replaced": {
			spec: two(), edit: func(w *Want, e *world) { w.RunHashes["b"] = "v1:new" }, want: "DeleteContainer b",
		},
		"two changed ones are replaced in order": {
			spec: two(), edit: func(w *Want, e *world) { w.RunHashes["a"], w.RunHashes["b"] = "v1:new", "v1:new" },
			want: "DeleteContainer a, Wait b",
		},
		"an operator's restart in order": {
			spec: two(), edit: func(w *Want, _ *world) { w.RestartToken = "t1" }, want: "DeleteContainer a, Wait b",
		},
		"an operator's restart of one": {
			spec: two(), edit: func(w *Want, _ *world) { w.RestartToken, w.RestartServices = "t1", []string{"b"} }, want: "DeleteContainer b",
		},
		"a service that left": {
			spec: two(), edit: func(w *Want, _ *world) { w.Spec.Services = w.Spec.Services[:1] }, want: "DeleteContainer b",
		},
		"an older epoch goes whole, the last service first": {
			spec: two(), edit: func(w *Want, _ *world) { w.Epoch++ }, want: "DeleteContainer b, DeleteContainer a",
		},
		"teardown goes by dependsOn": {
			spec: two(func(a, _ *carav1.Service) { a.DependsOn = []*carav1.Dependency{{Service: "b"}} }),
			edit: func(w *Want, _ *world) { w.Remove = true }, want: "DeleteContainer a",
		},
		"teardown of the rest": {
			spec: two(), edit: func(w *Want, e *world) { w.Remove, e.containers = true, nil }, want: "RemoveNetwork",
		},
		"the first restart is at once": {
			spec: two(), edit: func(_ *Want, e *world) { e.exit(0, 1) }, want: "RestartContainer a",
		},
		"the second one waits": {
			spec: two(), edit: func(_ *Want, e *world) {
				e.exit(0, 1)
				e.memory.Restarts["a"] = Restarts{Row: 1, Recent: []time.Time{e.now}}
			}, want: "Wait a",
		},
		"five are enough": {
			spec: two(), edit: func(_ *Want, e *world) {
				e.exit(0, 1)
				e.memory.Restarts["a"] = Restarts{Row: 5, Recent: slices.Repeat([]time.Time{e.now}, 5)}
			}, want: "Fail a",
		},
		"long up is forgiven": {
			spec: two(), edit: func(_ *Want, e *world) {
				e.memory.Restarts["a"] = Restarts{Row: 5, Recent: slices.Repeat([]time.Time{e.now}, 5)}
				e.now = e.now.Add(11 * time.Minute)
				e.exit(0, 1)
			}, want: "RestartContainer a",
		},
		"Never and a failure": {
			spec: two(func(a, _ *carav1.Service) { a.RestartPolicy = api.RestartNever }),
			edit: func(_ *Want, e *world) { e.exit(0, 1) }, want: "Fail a",
		},
		"Never and a success": {
			spec: two(func(a, _ *carav1.Service) { a.RestartPolicy = api.RestartNever }),
			edit: func(_ *Want, e *world) { e.exit(0, 0) },
		},
		"OnFailure and a failure": {
			spec: two(func(a, _ *carav1.Service) { a.RestartPolicy = api.RestartOnFailure }),
			edit: func(_ *Want, e *world) { e.exit(0, 3) }, want: "RestartContainer a",
		},
		"changed limits, in place": {
			spec: two(func(a, b *carav1.Service) { a.Resources, b.Resources = limited("1", "64Mi"), limited("", "") }),
			edit: func(w *Want, _ *world) {
				w.Spec.Services[0].Resources, w.Spec.Services[1].Resources = limited("2", "32Mi"), limited("500m", "1Gi")
				w.Hashes["a"], w.Hashes["b"] = "v1:new", "v1:new"
			}, want: "UpdateContainer a, UpdateContainer b",
		},
		"changed requests cost nothing": {
			spec: two(), edit: func(w *Want, _ *world) {
				w.Spec.Services[0].Resources, w.Hashes["a"] = &carav1.Resources{Requests: &carav1.ResourceList{Cpu: "1"}}, "v1:new"
			},
		},
		"a limit that is taken off": {
			spec: two(func(a, _ *carav1.Service) { a.Resources = limited("1", "64Mi") }),
			edit: func(w *Want, _ *world) { w.Spec.Services[0].Resources, w.Hashes["a"] = limited("1", ""), "v1:new" },
			want: "DeleteContainer a",
		},
		"limits that the engine cannot change": {
			spec: two(), edit: func(w *Want, e *world) {
				w.Spec.Services[0].Resources, w.Hashes["a"] = limited("1", ""), "v1:new"
				e.memory.Tries["UpdateContainer/a/cara-shop.a"] = Try{Count: 3, Err: "no"}
			}, want: "DeleteContainer a",
		},
		"limits of one that never ran": {
			spec: two(), edit: func(w *Want, e *world) {
				e.containers[0].State, e.containers[0].StartedAt = StateCreated, time.Time{}
				w.Spec.Services[0].Resources, w.Hashes["a"] = limited("1", ""), "v1:new"
			}, want: "DeleteContainer a",
		},
		"limits of one that has completed": {
			spec: two(func(a, _ *carav1.Service) { a.RestartPolicy = api.RestartNever }),
			edit: func(w *Want, e *world) {
				e.exit(0, 0)
				w.Spec.Services[0].Resources, w.Hashes["a"] = limited("1", ""), "v1:new"
			}, want: "UpdateContainer a",
		},
		"a container of an older agent is judged by its spec hash": {
			spec: two(), edit: func(w *Want, e *world) {
				delete(e.containers[0].Labels, labelRunHash)
				w.Hashes["a"] = "v1:new"
			}, want: "DeleteContainer a",
		},
		"limits changed by hand": {
			spec: two(), edit: func(_ *Want, e *world) { e.containers[1].Limits = ContainerLimits{Memory: 1 << 20} },
			want: "DeleteContainer b",
		},
		"paused by hand": {
			spec: two(), edit: func(_ *Want, e *world) { e.containers[0].State = StatePaused }, want: "UnpauseContainer a",
		},
		"disconnected by hand": {
			spec: two(), edit: func(_ *Want, e *world) { e.containers[0].Networks = nil }, want: "ConnectContainer a",
		},
		"two networks of one name: the one in use stays": {
			spec: two(), edit: func(w *Want, e *world) {
				e.networks = append([]Network{{ID: "id000", Name: "cara-shop", Labels: w.owner()}}, e.networks...)
			}, want: "RemoveNetwork",
		},
		"two networks of one name and nothing on them: nothing starts": {
			spec: two(), edit: func(w *Want, e *world) {
				e.networks = append(e.networks, Network{ID: "id999", Name: "cara-shop", Labels: w.owner()})
				for i := range e.containers {
					e.containers[i].State, e.containers[i].StartedAt, e.containers[i].Networks = StateCreated, time.Time{}, map[string]Attachment{"cara-shop": {}}
				}
			}, want: "RemoveNetwork",
		},
		"a name that something foreign has": {
			spec: two(), edit: func(_ *Want, e *world) {
				e.containers = e.containers[1:]
				e.memory.Tries["CreateContainer/a/cara-shop.a"] = Try{Count: 1, Final: true, Foreign: true, Err: "taken"}
			}, want: "Fail a",
		},
		"a failed project is stopped and kept": {
			spec: two(), edit: func(_ *Want, e *world) { e.memory.Failure = &Failure{} }, want: "StopContainer b, StopContainer a",
		},
		"a secret that is not here yet": {
			spec: two(func(a, _ *carav1.Service) {
				a.Env = []*carav1.EnvVar{{Name: "P", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "p"}}}}
			}), edit: func(w *Want, e *world) { w.HaveSecrets, w.Secrets, e.containers = false, nil, e.containers[1:] }, want: "Wait a",
		},
		"a secret that is not here and a container that is": {
			spec: two(func(a, _ *carav1.Service) {
				a.Env = []*carav1.EnvVar{{Name: "P", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "p"}}}}
			}), edit: func(w *Want, _ *world) { w.HaveSecrets, w.Secrets = false, nil },
		},
		"pull policy Never": {
			spec: two(func(a, _ *carav1.Service) { a.PullPolicy, a.Image = api.PullNever, "local" }),
			edit: func(_ *Want, e *world) { e.containers, e.images["local"] = e.containers[1:], false }, want: "Fail a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, e := wantOf(c.spec), newWorld()
			e.images["web"], e.images["other"], e.images["local"] = true, true, true
			w.Secrets = map[string][]byte{"db/p": []byte("x")}
			converge(t, e, w)
			if c.edit != nil {
				c.edit(w, e)
			}
			if got := kinds(Step(w, e.have(w), e.now)); got != c.want {
				t.Errorf("does %q, want %q", got, c.want)
			}
		})
	}
}

// exit ends a container.
func (e *world) exit(i int, code int32) {
	c := &e.containers[i]
	c.State, c.ExitCode, c.FinishedAt = StateExited, code, e.now
}

func TestStepWaitsForHealth(t *testing.T) {
	spec := &carav1.ProjectSpec{Services: []*carav1.Service{{
		Name: "a", Image: "web", Healthcheck: &carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: 80}},
	}}}
	for name, c := range map[string]struct {
		health *Health
		phase  string
		want   string
	}{
		"not probed yet":                 {nil, api.PhaseScheduled, "Wait a"},
		"starting":                       {&Health{State: HealthStarting}, api.PhaseScheduled, "Wait a"},
		"healthy":                        {&Health{State: HealthHealthy, Ever: true}, api.PhaseScheduled, ""},
		"never healthy":                  {&Health{State: HealthUnhealthy}, api.PhaseScheduled, "Fail a"},
		"unhealthy after it was":         {&Health{State: HealthUnhealthy, Ever: true}, api.PhaseScheduled, "Wait a"},
		"unhealthy in a running project": {&Health{State: HealthUnhealthy}, api.PhaseRunning, "Wait a"},
	} {
		t.Run(name, func(t *testing.T) {
			w, e := wantOf(spec), newWorld()
			converge(t, e, w)
			w.Phase = c.phase
			h := e.have(w)
			delete(h.Health, e.containers[0].ID)
			if c.health != nil {
				h.Health[e.containers[0].ID] = *c.health
			}
			if got := kinds(Step(w, h, e.now)); got != c.want {
				t.Errorf("does %q, want %q", got, c.want)
			}
		})
	}
}

func TestRestartDelays(t *testing.T) {
	l := RestartLimits{Limit: 100}.withDefaults()
	now := time.Unix(1_800_000_000, 0)
	var r Restarts
	var delays []string
	for range 12 {
		at, exhausted := l.due(r, now, now, now)
		if exhausted {
			t.Fatal("exhausted")
		}
		delays = append(delays, fmt.Sprint(at.Sub(now)))
		r = l.again(r, now, now, now)
		now = now.Add(at.Sub(now))
	}
	want := []string{"0s", "1s", "2s", "4s", "8s", "16s", "32s", "1m4s", "2m8s", "4m16s", "5m0s", "5m0s"}
	if diff := cmp.Diff(want, delays); diff != "" {
		t.Errorf("delays (-want +got):\n%s", diff)
	}
}
