package step

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
					e.containers[i].State, e.containers[i].StartedAt = engine.StateCreated, time.Time{}
				}
			}, want: "StartContainer a, Wait b",
		},
		"with dependsOn, what depends on nothing starts": {
			spec: two(func(a, _ *carav1.Service) { a.DependsOn = []*carav1.Dependency{{Service: "b"}} }),
			edit: func(_ *Want, e *world) {
				for i := range e.containers {
					e.containers[i].State, e.containers[i].StartedAt = engine.StateCreated, time.Time{}
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
			spec: two(), edit: func(w *Want, _ *world) { w.askRestart("t1") }, want: "StopContainer a, Wait b",
		},
		"an operator's restart of one": {
			spec: two(), edit: func(w *Want, _ *world) { w.askRestart("t1", "b") }, want: "StopContainer b",
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
				e.containers[0].State, e.containers[0].StartedAt = engine.StateCreated, time.Time{}
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
			spec: two(), edit: func(_ *Want, e *world) { e.containers[1].Limits = engine.Limits{Memory: 1 << 20} },
			want: "DeleteContainer b",
		},
		"paused by hand": {
			spec: two(), edit: func(_ *Want, e *world) { e.containers[0].State = engine.StatePaused }, want: "UnpauseContainer a",
		},
		"a connection that failed": {
			spec: two(), edit: func(w *Want, e *world) {
				e.containers[0].Networks = map[string]engine.Attachment{NetworkName(w.Project): {}}
			}, want: "ConnectContainer a",
		},
		"on a network that is gone": {
			spec: two(), edit: func(w *Want, e *world) {
				e.containers[0].Networks = map[string]engine.Attachment{NetworkName(w.Project): {NetworkID: "gone"}}
			}, want: "ConnectContainer a",
		},
		"disconnected by hand": {
			spec: two(), edit: func(_ *Want, e *world) { e.containers[0].Networks = nil }, want: "ConnectContainer a",
		},
		"two networks of one name: the one in use stays": {
			spec: two(), edit: func(w *Want, e *world) {
				e.networks = append([]engine.Network{{ID: "id000", Name: "cara-shop", Labels: w.Owner()}}, e.networks...)
			}, want: "RemoveNetwork",
		},
		"two networks of one name and nothing on them: nothing starts": {
			spec: two(), edit: func(w *Want, e *world) {
				e.networks = append(e.networks, engine.Network{ID: "id999", Name: "cara-shop", Labels: w.Owner()})
				for i := range e.containers {
					e.containers[i].State, e.containers[i].StartedAt, e.containers[i].Networks = engine.StateCreated, time.Time{}, map[string]engine.Attachment{"cara-shop": {}}
				}
			}, want: "RemoveNetwork",
		},
		"a name that something foreign has": {
			spec: two(), edit: func(_ *Want, e *world) {
				e.containers = e.containers[1:]
				e.memory.Tries["CreateContainer/a/cara-shop.a"] = Try{Count: 1, Final: true, Foreign: true, Err: "taken"}
			}, want: "Fail a",
		},
		"a network that there is no room for, however often it was tried": {
			spec: two(), edit: func(_ *Want, e *world) {
				e.containers, e.networks = nil, nil
				e.memory.Tries["CreateNetwork//cara-shop"] = Try{Count: 100, NoRoom: true, Err: "no room", Next: e.now.Add(time.Second)}
			}, want: "Wait, CreateContainer a, CreateContainer b",
		},
		"and it is tried again in time": {
			spec: two(), edit: func(_ *Want, e *world) {
				e.containers, e.networks = nil, nil
				e.memory.Tries["CreateNetwork//cara-shop"] = Try{Count: 100, NoRoom: true, Err: "no room", Next: e.now}
			}, want: "CreateNetwork, CreateContainer a, CreateContainer b",
		},
		"a network that fails too often": {
			spec: two(), edit: func(_ *Want, e *world) {
				e.containers, e.networks = nil, nil
				e.memory.Tries["CreateNetwork//cara-shop"] = Try{Count: 100, Err: "no", Next: e.now}
			}, want: "Fail, CreateContainer a, CreateContainer b",
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
	c.State, c.ExitCode, c.FinishedAt = engine.StateExited, code, e.now
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
		"starting":                       {&Health{State: api.HealthStarting}, api.PhaseScheduled, "Wait a"},
		"healthy":                        {&Health{State: api.HealthHealthy, Ever: true}, api.PhaseScheduled, ""},
		"never healthy":                  {&Health{State: api.HealthUnhealthy}, api.PhaseScheduled, "Fail a"},
		"unhealthy after it was":         {&Health{State: api.HealthUnhealthy, Ever: true}, api.PhaseScheduled, "Wait a"},
		"unhealthy in a running project": {&Health{State: api.HealthUnhealthy}, api.PhaseRunning, "Wait a"},
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
	l := RestartLimits{Limit: 100}.WithDefaults()
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
