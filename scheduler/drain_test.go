package scheduler

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// running is a project that runs on a node.
func running(name, node, memory string) *carav1.Project {
	p := pending(name, memory)
	p.Status.Phase, p.Status.NodeRef, p.Status.Epoch = api.PhaseRunning, node, 1
	return p
}

func draining(n *carav1.Node, parallel int32) *carav1.Node {
	n.Spec = &carav1.NodeSpec{Draining: true, Unschedulable: true, DrainMaxParallel: parallel}
	n.Status.State = api.NodeDraining
	return n
}

// becomes reports a phase, as an agent does.
func (w *fakeServer) becomes(name, phase string) {
	w.change(name, func(p *carav1.Project) { p.Status.Phase, p.Status.MovedFrom = phase, "" })
}

// on names the projects of a node that are in a phase, sorted.
func (w *fakeServer) on(node, phase string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name, p := range w.projects {
		if p.Status.NodeRef == node && p.Status.Phase == phase {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (w *fakeServer) isDrained(node string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return api.IsTrue(w.nodes[node].GetStatus().GetConditions(), api.CondDrained)
}

func TestADrainMovesSoManyAtATime(t *testing.T) {
	for _, parallel := range []int32{0, 1, 3, 50} {
		t.Run(fmt.Sprint(parallel), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const projects = 12
				w := newFakeServer()
				w.Put(node("n1", "64Gi"), node("n2", "64Gi"), node("n3", "64Gi"))
				for i := range projects {
					w.Put(running(fmt.Sprintf("p%02d", i), "n1", "1Gi"))
				}
				defer live(w, "n1", "n2", "n3")()
				stop := run(t, w, Config{})
				pass(time.Second)
				w.Put(draining(node("n1", "64Gi"), parallel))
				at := min(max(1, int(parallel)), projects)
				for moved := range projects {
					pass(time.Second)
					if left, want := len(w.on("n1", api.PhaseRunning)), max(0, projects-moved-at); left != want {
						t.Fatalf("%d are left after %d have arrived, want %d", left, moved, want)
					}
					coming := append(w.on("n2", api.PhaseScheduled), w.on("n3", api.PhaseScheduled)...)
					if w.isDrained("n1") || len(coming) == 0 {
						t.Fatalf("drained: %t, underway: %v, with %d arrived", w.isDrained("n1"), coming, moved)
					}
					w.becomes(coming[0], api.PhaseRunning)
				}
				pass(time.Second)
				if w.peak != at || !w.isDrained("n1") {
					t.Errorf("%d did not run at once, want at most %d; drained: %t", w.peak, at, w.isDrained("n1"))
				}
				writes := w.writes
				pass(time.Hour)
				if w.writes != writes {
					t.Errorf("%d writes after the drain", w.writes-writes)
				}
				stop()
			})
		})
	}
}

func TestADrainGoesOnPastWhatFailsOrGoesAndWaitsForWhatDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "8Gi"), node("n2", "8Gi"), running("a", "n1", ""), running("b", "n1", ""), running("c", "n1", ""), running("d", "n1", ""))
		defer live(w, "n1", "n2")()
		stop := run(t, w, Config{})
		w.Put(draining(node("n1", "8Gi"), 1))
		pass(time.Hour)
		wantPhase(t, w, "a", api.PhaseScheduled, "n2", "")
		wantPhase(t, w, "b", api.PhaseRunning, "n1", "")
		w.becomes("a", api.PhaseFailed)
		pass(time.Second)
		wantPhase(t, w, "b", api.PhaseScheduled, "n2", "")
		wantPhase(t, w, "c", api.PhaseRunning, "n1", "")
		w.becomes("b", api.PhaseTerminating)
		pass(time.Second)
		wantPhase(t, w, "c", api.PhaseScheduled, "n2", "")
		n2 := node("n2", "8Gi") // c cannot go back there: it still waits for its turn
		n2.Spec = &carav1.NodeSpec{Unschedulable: true}
		w.Put(n2)
		w.change("c", func(p *carav1.Project) { p.Status.Phase, p.Status.NodeRef = api.PhasePending, "" })
		pass(time.Hour)
		wantPhase(t, w, "c", api.PhasePending, "", "0 of 2 nodes fit: 1 draining, 1 cordoned")
		wantPhase(t, w, "d", api.PhaseRunning, "n1", "")
		w.Put(node("n2", "8Gi"))
		pass(time.Second)
		w.becomes("c", api.PhaseRunning)
		pass(time.Second)
		wantPhase(t, w, "d", api.PhaseScheduled, "n2", "")
		if w.peak != 1 {
			t.Errorf("%d did not run at once", w.peak)
		}
		stop()
	})
}

func TestADrainingNodeKeepsWhatFitsNowhereElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "8Gi"), node("n2", "1Gi"), running("big", "n1", "2Gi"), running("small", "n1", "1Gi"))
		defer live(w, "n1", "n2")()
		stop := run(t, w, Config{})
		w.Put(draining(node("n1", "8Gi"), 1))
		pass(time.Minute)
		why := "node n1 is draining, and the project stays: 0 of 2 nodes fit: 1 draining, 1 insufficient memory"
		wantPhase(t, w, "big", api.PhaseRunning, "n1", why)
		wantPhase(t, w, "small", api.PhaseScheduled, "n2", "")
		w.becomes("small", api.PhaseRunning)
		pass(time.Minute)
		wantPhase(t, w, "big", api.PhaseRunning, "n1", why)
		if w.isDrained("n1") {
			t.Error("drained with a project on it")
		}
		w.Put(node("n2", "4Gi"))
		pass(time.Second)
		wantPhase(t, w, "big", api.PhaseScheduled, "n2", "")
		stop()
	})
}

func TestADrainThatEndsLetsTheRestBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "8Gi"), node("n2", "1Gi"), running("big", "n1", "2Gi"), running("c", "n1", ""), running("d", "n1", ""))
		defer live(w, "n1", "n2")()
		stop := run(t, w, Config{})
		w.Put(draining(node("n1", "8Gi"), 1))
		pass(time.Second)
		wantPhase(t, w, "c", api.PhaseScheduled, "n2", "")
		w.Put(node("n1", "8Gi"))
		pass(time.Second)
		w.becomes("c", api.PhaseRunning)
		pass(time.Minute)
		wantPhase(t, w, "big", api.PhaseRunning, "n1", "stays on n1")
		wantPhase(t, w, "d", api.PhaseRunning, "n1", "")
		stop()
	})
}

func TestADrainSurvivesARestartOfTheScheduler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const projects = 6
		w := newFakeServer()
		w.Put(draining(node("n1", "8Gi"), 2), node("n2", "8Gi"))
		for i := range projects {
			w.Put(running(fmt.Sprint("p", i), "n1", "1Gi"))
		}
		defer live(w, "n1", "n2")()
		for range projects {
			stop := run(t, w, Config{})
			pass(time.Second)
			stop()
			w.becomes(w.on("n2", api.PhaseScheduled)[0], api.PhaseRunning)
		}
		stop := run(t, w, Config{})
		pass(time.Second)
		if len(w.on("n2", api.PhaseRunning)) != projects || w.peak != 2 || !w.isDrained("n1") {
			t.Errorf("%v arrived, %d did not run at once, drained: %t", w.on("n2", api.PhaseRunning), w.peak, w.isDrained("n1"))
		}
		stop()
	})
}

func TestAFailedProjectDoesNotHoldADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		broken, ending := running("broken", "n1", ""), running("ending", "n1", "")
		broken.Status.Phase, ending.Status.Phase = api.PhaseFailed, api.PhaseTerminating
		w.Put(draining(node("n1", "8Gi"), 1), node("n2", "8Gi"), broken, ending)
		defer live(w, "n1", "n2")()
		stop := run(t, w, Config{})
		pass(time.Minute)
		if w.isDrained("n1") {
			t.Error("drained while a project is being torn down there")
		}
		w.becomes("ending", api.PhaseTerminated)
		pass(time.Second)
		if !w.isDrained("n1") {
			t.Error("not drained")
		}
		wantPhase(t, w, "broken", api.PhaseFailed, "n1", "")
		stop()
	})
}
