package step

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// served brings a project up and lets it serve long enough to be worth keeping.
func served(t *testing.T, w *Want) *world {
	t.Helper()
	e := newWorld()
	e.images["web"], e.images["job"] = true, true
	converge(t, e, w)
	w.Phase = api.PhaseRunning
	e.now = e.now.Add(2 * time.Minute)
	for _, svc := range w.Spec.GetServices() { // a look at all of them
		if c := e.of(svc.GetName()); c == nil {
			t.Fatalf("service %s has no container", svc.GetName())
		}
	}
	h := e.have(w)
	e.record = e.record.Next(w, h, Step(w, h, e.now), e.now)
	if e.record.Served == nil {
		t.Fatal("the project does not count as served")
	}
	return e
}

// of is the first container of a service.
func (e *world) of(service string) *engine.Container {
	i := slices.IndexFunc(e.containers, func(c engine.Container) bool { return c.Labels[api.LabelService] == service })
	if i < 0 {
		return nil
	}
	return &e.containers[i]
}

// updated is a next generation of a project in which these services are others.
func updated(w *Want, services ...string) *Want {
	n := *w
	n.Generation, n.Phase = w.Generation+1, api.PhaseScheduled
	n.RunHashes, n.Hashes = map[string]string{}, map[string]string{}
	for _, svc := range w.Spec.GetServices() {
		n.RunHashes[svc.GetName()], n.Hashes[svc.GetName()] = w.RunHashes[svc.GetName()], w.Hashes[svc.GetName()]
	}
	for _, s := range services {
		n.RunHashes[s], n.Hashes[s] = "v1:new", "v1:new"
	}
	return &n
}

// rest steps until nothing more is done, and returns what was, without waits.
func (e *world) rest(t *testing.T, w *Want) (did []string) {
	t.Helper()
	e.forget()
	e.memory.Update = e.record.UpdateFailure(w)
	for range 200 {
		actions := Step(w, e.have(w), e.now)
		if len(actions) == 0 || !slices.ContainsFunc(actions, func(a Action) bool { return a.Kind != KindWait || !a.Until.IsZero() }) {
			e.record = e.record.Next(w, e.have(w), actions, e.now)
			return did
		}
		for _, a := range actions {
			if a.Kind != KindWait {
				did = append(did, kinds([]Action{a}))
			}
		}
		e.do(w, actions)
	}
	t.Fatalf("not at rest after 200 steps: %v", did)
	return nil
}

func TestUpdateKeepsWhatServes(t *testing.T) {
	run := func(name string, change ...func(*carav1.Service)) *carav1.Service {
		s := &carav1.Service{Name: name, Image: "web"}
		for _, c := range change {
			c(s)
		}
		return s
	}
	job := func(s *carav1.Service) { s.Image, s.RestartPolicy = "job", api.RestartNever }
	first := func(s *carav1.Service) { s.Update = &carav1.Update{Order: api.UpdateStartFirst} }
	none := Pull{Err: "no such image", Final: true}
	type end struct {
		Phase, Reason string
		Up            []string // services whose container of before runs, in the order of their names
		New           []string // and of the new version
	}
	for name, c := range map[string]struct {
		services []*carav1.Service
		changed  []string
		edit     func(*Want, *world) // before the update
		want     end
	}{
		"a changed job fails, beside services that serve": {
			services: []*carav1.Service{run("app"), run("db"), run("migrate", job)}, changed: []string{"migrate"},
			edit: func(_ *Want, e *world) { e.broken["migrate"] = "crash" },
			want: end{Reason: api.ReasonUpdateFailed, Up: []string{"app", "db"}},
		},
		"a changed image is not found, stop-first": {
			services: []*carav1.Service{run("app"), run("db")}, changed: []string{"app"},
			edit: func(w *Want, e *world) { w.Spec.Services[0].Image, e.missing = "none", map[string]Pull{"none": none} },
			want: end{Reason: api.ReasonUpdateFailed, Up: []string{"app", "db"}},
		},
		"a changed image is not found, start-first": {
			services: []*carav1.Service{run("app", first), run("db")}, changed: []string{"app"},
			edit: func(w *Want, e *world) { w.Spec.Services[0].Image, e.missing = "none", map[string]Pull{"none": none} },
			want: end{Reason: api.ReasonUpdateFailed, Up: []string{"app", "db"}},
		},
		"the only service crashes, stop-first": {
			services: []*carav1.Service{run("app")}, changed: []string{"app"},
			edit: func(_ *Want, e *world) { e.broken["app"] = "crash" },
			want: end{Reason: api.ReasonUpdateFailed, Up: []string{"app"}},
		},
		"the only service is never healthy, stop-first": {
			services: []*carav1.Service{run("app", func(s *carav1.Service) { s.Healthcheck = &carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: 80}} })},
			changed:  []string{"app"},
			edit:     func(_ *Want, e *world) { e.broken["app"] = "sick" },
			want:     end{Reason: api.ReasonUpdateFailed, Up: []string{"app"}},
		},
		"one crashes once the one before it is replaced": {
			services: []*carav1.Service{run("app"), run("db")}, changed: []string{"app", "db"},
			edit: func(_ *Want, e *world) { e.broken["db"] = "crash" },
			want: end{Reason: api.ReasonUpdateFailed, Up: []string{"db"}, New: []string{"app"}},
		},
		"one that is new crashes": {
			services: []*carav1.Service{run("app"), run("db")},
			edit: func(w *Want, e *world) {
				w.Spec.Services = append(slices.Clone(w.Spec.Services), run("extra"))
				w.RunHashes["extra"], w.Hashes["extra"], e.broken["extra"] = "v1:new", "v1:new", "crash"
			},
			want: end{Reason: api.ReasonUpdateFailed, Up: []string{"app", "db"}},
		},
		"one is renamed, and crashes": {
			services: []*carav1.Service{run("app"), run("db")},
			edit: func(w *Want, e *world) {
				w.Spec.Services = []*carav1.Service{w.Spec.Services[0], run("store")}
				w.RunHashes["store"], w.Hashes["store"], e.broken["store"] = "v1:new", "v1:new", "crash"
			},
			want: end{Reason: api.ReasonUpdateFailed, Up: []string{"app", "db"}},
		},
		"one leaves, and another crashes": {
			services: []*carav1.Service{run("app"), run("db")}, changed: []string{"app"},
			edit: func(w *Want, e *world) { w.Spec.Services, e.broken["app"] = w.Spec.Services[:1], "crash" },
			want: end{Reason: api.ReasonUpdateFailed, Up: []string{"app", "db"}},
		},
		"two crash": {
			services: []*carav1.Service{run("app"), run("b", first), run("c", first)}, changed: []string{"b", "c"},
			edit: func(_ *Want, e *world) { e.broken["b"], e.broken["c"] = "crash", "crash" },
			want: end{Reason: api.ReasonUpdateFailed, Up: []string{"app", "b", "c"}},
		},
		"the network is too small for more": {
			services: []*carav1.Service{run("app")},
			edit: func(w *Want, e *world) {
				e.networks[0].Subnet = "10.213.0.0/27"
				for i := range 29 {
					name := fmt.Sprint("more", i)
					w.Spec.Services = append(w.Spec.Services, run(name))
					w.RunHashes[name], w.Hashes[name] = "v1:new", "v1:new"
				}
			},
			want: end{Reason: api.ReasonUpdateFailed, Up: []string{"app"}},
		},
		"nothing served any more": {
			services: []*carav1.Service{run("app")}, changed: []string{"app"},
			edit: func(_ *Want, e *world) { e.exit(0, 1); e.broken["app"] = "crash" },
			want: end{Phase: api.PhaseFailed, Reason: "CrashLoop"},
		},
		"it comes up": {
			services: []*carav1.Service{run("app"), run("db"), run("migrate", job)}, changed: []string{"app", "migrate"},
			edit: func(*Want, *world) {},
			want: end{Phase: api.PhaseRunning, Reason: "ServicesUp", Up: []string{"db"}, New: []string{"app"}},
		},
		"one is renamed": {
			services: []*carav1.Service{run("app"), run("db")},
			edit: func(w *Want, _ *world) {
				w.Spec.Services = []*carav1.Service{w.Spec.Services[0], run("store")}
				w.RunHashes["store"], w.Hashes["store"] = "v1:new", "v1:new"
			},
			want: end{Phase: api.PhaseRunning, Reason: "ServicesUp", Up: []string{"app"}, New: []string{"store"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := wantOf(&carav1.ProjectSpec{Services: c.services})
			e := served(t, before)
			w := updated(before, c.changed...)
			w.Spec = &carav1.ProjectSpec{Services: slices.Clone(before.Spec.Services)}
			for i, s := range w.Spec.Services {
				w.Spec.Services[i] = proto.CloneOf(s)
			}
			was := map[string]string{} // names of the services, by their container of before
			for _, x := range e.containers {
				was[x.ID] = x.Labels[api.LabelService]
			}
			c.edit(w, e)
			did := e.rest(t, w)
			h := e.have(w)
			r := Report(w, h, Step(w, h, e.now), e.now)
			got := end{Phase: r.Phase, Reason: api.FindCondition(r.Conditions, api.CondReady).GetReason()}
			for _, x := range e.containers {
				switch service, old := was[x.ID]; {
				case x.State != engine.StateRunning:
				case old:
					got.Up = append(got.Up, service)
				default:
					got.New = append(got.New, x.Labels[api.LabelService])
				}
			}
			slices.Sort(got.Up)
			slices.Sort(got.New)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s\ndid %q", diff, did)
			}
			if again := e.rest(t, w); len(again) > 0 && c.want.Phase != api.PhaseFailed {
				t.Errorf("another agent does %q", again)
			}
		})
	}
}
