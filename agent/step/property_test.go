package step

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// converge steps until there is nothing left to do, and checks that no up-to-date container is harmed.
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

// unharmed: no action affects an up-to-date container or a missing object.
func unharmed(t *testing.T, w *Want, h *Have, actions []Action, now time.Time) {
	t.Helper()
	s := &progress{view{w: w, h: h, now: now}}
	for _, a := range actions {
		c := h.Find(a.ID)
		if a.Kind == KindRemoveVolume && slices.ContainsFunc(h.Managed, func(v engine.Volume) bool { return v.Name == a.Name }) {
			t.Fatalf("%v removes a Managed volume", a)
		}
		if a.Kind == KindCreateContainer {
			lonely(t, s, a)
		}
		if a.Kind == KindRemoveNetwork || a.Kind == KindWait || a.ID == "" {
			continue
		}
		if c.ID == "" {
			t.Fatalf("%v names a container that is not there", a)
		}
		svc := w.Service(c.Labels[api.LabelService])
		if w.Remove || h.Memory.Failure != nil || svc == nil || !w.sameAssignment(c.Labels) {
			continue
		}
		at, attached := c.Networks[NetworkName(w.Project)]
		if keep := s.h.network(s.w.Project); keep != nil && at.NetworkID != keep.ID || keep != nil && !w.sameAssignment(keep.Labels) {
			continue // it is on a network of another assignment, or on a second one
		}
		if h.Memory.Update != nil && s.previous(svc) != nil && s.outdated(svc, &c) == "" {
			continue // its own update failed, or another one's
		}
		if own := s.container(svc.GetName()); own.ID == c.ID && s.outdated(svc, &c) == "" && !s.wrongLimits(svc, &c) && c.State == engine.StateRunning && attached {
			t.Fatalf("%v: the container is as wanted", a)
		}
		if a.Kind == KindDeleteContainer || a.Kind == KindStopContainer {
			succeeded(t, s, svc, c, a)
		}
	}
}

// lonely: a container is only created if no up-to-date one and at most one outdated one exists.
func lonely(t *testing.T, s *progress, a Action) {
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
	if svc := s.w.Service(a.Service); others > 1 || s.best(svc, true) != nil {
		t.Fatalf("%v: the service has %d containers: %+v", a, others, s.h.Containers)
	}
}

// succeeded: an outdated container that serves start-first is deleted only once an up-to-date one is ready.
func succeeded(t *testing.T, s *progress, svc *carav1.Service, c engine.Container, a Action) {
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
		case o.State == engine.StateRunning && svc.GetHealthcheck() != nil && s.h.Health[o.ID].State == api.HealthHealthy:
			return
		case o.State == engine.StateRunning && svc.GetHealthcheck() == nil && s.now.Sub(o.StartedAt) >= 5*time.Second:
			return
		}
	}
	t.Fatalf("%v: nothing takes its place: %+v", a, s.h.Containers)
}

// arrived: the engine is in the desired state, complete and with nothing else.
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
	s := &progress{view{w: w, h: e.have(w), now: e.now}}
	gone := 0 // completed, and somebody removed the container
	for _, svc := range w.Spec.GetServices() {
		if s.completion(svc) != nil {
			gone++
		}
	}
	if len(e.containers) != len(w.Spec.GetServices())-gone || len(e.networks) != 1 || len(e.volumes)+len(w.Uses) != len(w.Spec.GetVolumes()) {
		t.Fatalf("wants\n%v\nhas\n%+v", w.Spec, e.have(w))
	}
	for name, use := range w.Uses {
		if !s.h.inEngine(w.source(name).Volume, use.GetUid()) {
			t.Fatalf("the volume %s is not there: %+v", name, e.data)
		}
	}
	for _, svc := range w.Spec.GetServices() {
		if !s.isUp(svc) {
			t.Fatalf("service %s is not up: %+v", svc.GetName(), e.containers)
		}
	}
	if r := Report(w, e.have(w), nil, e.now); r.Phase != api.PhaseRunning {
		t.Fatalf("the report says %v", r)
	}
}

// held: an update failed, and the previous containers are kept running.
func held(t *testing.T, e *world, w *Want) {
	t.Helper()
	e.now = e.now.Add(e.warm) // what was started again is healthy by now
	h := e.have(w)
	s := &progress{view{w: w, h: h, now: e.now}}
	for _, svc := range w.Spec.GetServices() {
		c := s.serving(svc)
		if c == nil && s.completion(svc) != nil {
			continue
		}
		if s.replacing() && c != nil && c.State != engine.StateRunning && s.previous(svc) == nil {
			continue // its update brought nothing up, and others serve
		}
		if c == nil && s.replacing() {
			continue
		}
		if c == nil || c.State != engine.StateRunning && !s.done(svc, c) && s.blocked(svc) == "" {
			t.Fatalf("service %s does not serve: %+v", svc.GetName(), e.containers)
		}
	}
	for _, c := range e.containers {
		svc := w.Service(c.Labels[api.LabelService])
		if svc != nil && up(c) && s.serving(svc) != nil && s.serving(svc).ID != c.ID {
			t.Fatalf("%s of %s runs beside %s", c.ID, svc.GetName(), s.serving(svc).ID)
		}
	}
	r := Report(w, h, nil, e.now)
	ready := api.FindCondition(r.Conditions, api.CondReady)
	if r.Phase != "" || ready.GetReason() != api.ReasonUpdateFailed || !strings.Contains(ready.GetMessage(), "service "+e.memory.Update.Service) {
		t.Fatalf("the report says %v", r)
	}
	serving := s.serving(w.Service(e.memory.Update.Service))
	if serving == nil || !up(*serving) {
		return
	}
	if got, want := Routable(w, h, nil, e.now)[e.memory.Update.Service], serving.Networks[NetworkName(w.Project)].IP; got != want {
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
	// again, after manual changes
	c := &e.containers[r.IntN(len(e.containers))]
	switch r.IntN(4) {
	case 0:
		c.State, c.ExitCode, c.FinishedAt = engine.StateExited, 137, e.now
	case 1:
		c.State = engine.StateRemoving
	case 2:
		c.Labels[labelRunHash] = "v1:old"
	case 3:
		e.networks, c.Networks = nil, nil
	}
	converge(t, e, w)
	// through several generations, each of which may start before the previous one has arrived; the agent may lose its memory
	for range r.IntN(4) {
		if e.memory.Failure != nil {
			return
		}
		before := r.IntN(2) == 0
		if before { // it served
			running := *w
			running.Phase = api.PhaseRunning
			w, e.now = &running, e.now.Add(2*time.Minute)
			e.record = e.record.Next(w, e.have(w), nil, e.now)
		}
		if before || r.IntN(4) > 0 {
			w = next(r, w)
			w.Phase = api.PhaseScheduled
		}
		clear(e.broken)
		if r.IntN(2) == 0 {
			e.breakOne(r, w)
		}
		e.forget()
		e.memory.Update = e.record.UpdateFailure(w)
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

// forget resets the memory, as for a new agent or a new rollout.
func (e *world) forget() {
	e.memory = Memory{Pulls: map[string]Pull{}, Restarts: map[string]Restarts{}, Tries: map[string]Try{}}
}

func FuzzStep(f *testing.F) {
	for seed := range uint64(16) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { property(t, seed) })
}
