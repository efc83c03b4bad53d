package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func node(name, memory string) *carav1.Node {
	return &carav1.Node{
		Metadata: &carav1.ObjectMeta{Name: name},
		Status: &carav1.NodeStatus{State: api.NodeReady, Info: &carav1.NodeInfo{
			Capacity: &carav1.NodeCapacity{Cpu: "4", Memory: memory, Subnets: 100},
		}},
	}
}

func pending(name, memory string) *carav1.Project {
	p := &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: name, Uid: name, Generation: 1},
		Spec:     &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", Image: "a"}}},
		Status:   &carav1.ProjectStatus{Phase: api.PhasePending},
	}
	if memory != "" {
		p.Spec.Services[0].Resources = &carav1.Resources{Requests: &carav1.ResourceList{Memory: memory}}
	}
	return p
}

// live keeps nodes alive until stop is called.
func live(w *fakeServer, names ...string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for {
			for _, n := range names {
				w.beat(n)
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	return func() { close(done); <-ended }
}

func pass(d time.Duration) { <-time.After(d); synctest.Wait() }

func wantPhase(t *testing.T, w *fakeServer, name, phase, node, message string) {
	t.Helper()
	p := w.project(name)
	c := api.FindCondition(p.GetStatus().GetConditions(), api.CondScheduled)
	if p.GetStatus().GetPhase() != phase || p.GetStatus().GetNodeRef() != node || message != "" && c.GetMessage() != message {
		t.Errorf("%s is %s on %q (%s), want %s on %q (%s)", name, p.GetStatus().GetPhase(), p.GetStatus().GetNodeRef(), c.GetMessage(), phase, node, message)
	}
}

func TestPendingProjectsAreBoundWithinCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "1Gi"), node("n2", "1Gi"))
		defer live(w, "n1", "n2")()
		for i := range 10 {
			w.Put(pending(fmt.Sprint("p", i), "256Mi"))
		}
		stop := run(t, w, Config{})
		pass(time.Second)
		on := map[string]int{}
		for i := range 10 {
			on[w.project(fmt.Sprint("p", i)).Status.NodeRef]++
		}
		if on["n1"] != 4 || on["n2"] != 4 || on[""] != 2 {
			t.Errorf("placed %v, want 4 on each and 2 that wait", on)
		}
		stop()
	})
}

func TestBinpackFillsOneNodeAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "1Gi"), node("n2", "1Gi"), node("n3", "1Gi"))
		defer live(w, "n1", "n2", "n3")()
		stop := run(t, w, Config{Strategy: Binpack})
		on := map[string]int{}
		for i := range 6 { // one after the other: side by side is as good, and in no order
			w.Put(pending(fmt.Sprint("p", i), "256Mi"))
			pass(time.Second)
			on[w.project(fmt.Sprint("p", i)).Status.NodeRef]++
		}
		counts := slices.Sorted(maps.Values(on))
		if !slices.Equal(counts, []int{2, 4}) {
			t.Errorf("placed %v, want 4 on one node and 2 on another", on)
		}
		stop()
	})
}

func TestAProjectThatWaitsSaysWhyAndGoesWhenThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(pending("big", "2Gi"))
		stop := run(t, w, Config{})
		pass(time.Second)
		wantPhase(t, w, "big", api.PhasePending, "", "there are no nodes: start cara-agent on a machine with Docker and let it join")
		w.Put(node("n1", "1Gi"))
		defer live(w, "n1")()
		pass(time.Second)
		wantPhase(t, w, "big", api.PhasePending, "", "0 of 1 nodes fit: 1 insufficient memory")
		writes := w.writes
		pass(time.Hour)
		if w.writes != writes {
			t.Errorf("%d writes although nothing changed", w.writes-writes)
		}
		n := node("n1", "4Gi")
		w.Put(n)
		pass(time.Second)
		wantPhase(t, w, "big", api.PhaseScheduled, "n1", "")
		stop()
	})
}

func TestRoomThatIsFreedIsUsed(t *testing.T) {
	for phase, frees := range map[string]bool{api.PhaseTerminating: false, api.PhaseTerminated: true} {
		t.Run(phase, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFakeServer()
				w.Put(node("n1", "1Gi"), pending("first", "1Gi"))
				defer live(w, "n1")()
				stop := run(t, w, Config{})
				pass(time.Second)
				w.Put(pending("second", "1Gi"))
				pass(time.Second)
				w.change("first", func(p *carav1.Project) { p.Status.Phase = phase })
				pass(time.Second)
				want, node := api.PhasePending, ""
				if frees {
					want, node = api.PhaseScheduled, "n1"
				}
				wantPhase(t, w, "second", want, node, "")
				stop()
			})
		})
	}
}

func TestALostNodesProjectsMoveAfterTheirOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "8Gi"), node("n2", "8Gi"))
		quick, never := pending("quick", ""), pending("never", "")
		quick.Spec.RescheduleAfter, never.Spec.RescheduleAfter = "5s", "never"
		for _, p := range []*carav1.Project{quick, never, pending("default", "")} {
			p.Spec.NodeSelector = map[string]string{"first": "yes"}
			w.Put(p)
		}
		first := node("n1", "8Gi")
		first.Metadata.Labels = map[string]string{"first": "yes"}
		w.Put(first)
		defer live(w, "n2")()
		silence := live(w, "n1")
		stop := run(t, w, Config{})
		pass(30 * time.Second)
		for _, name := range []string{"quick", "never", "default"} {
			wantPhase(t, w, name, api.PhaseScheduled, "n1", "")
		}
		silence()
		second := node("n2", "8Gi")
		second.Metadata.Labels = map[string]string{"first": "yes"}
		w.Put(second)
		pass(19 * time.Second)
		wantPhase(t, w, "quick", api.PhaseScheduled, "n1", "")
		pass(7 * time.Second) // 20 s of silence and 5 s of patience are over
		wantPhase(t, w, "quick", api.PhaseScheduled, "n2", "")
		wantPhase(t, w, "default", api.PhaseScheduled, "n1", "")
		pass(time.Minute)
		wantPhase(t, w, "default", api.PhaseScheduled, "n2", "")
		pass(time.Hour)
		wantPhase(t, w, "never", api.PhaseScheduled, "n1", "")
		if e := w.project("quick").Status.Epoch; e != 2 {
			t.Errorf("epoch %d after the move, want 2", e)
		}
		stop()
	})
}

func TestARestartOfTheSchedulerMovesNothingBeforeOneTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		n := node("n1", "8Gi")
		n.Status.State = api.NodeNotReady // as it was when the server went down, long ago
		p := pending("p", "")
		p.Spec.RescheduleAfter = "0s"
		p.Status.Phase, p.Status.NodeRef, p.Status.Epoch = api.PhaseRunning, "n1", 1
		w.Put(n, p)
		stop := run(t, w, Config{})
		pass(19 * time.Second)
		wantPhase(t, w, "p", api.PhaseRunning, "n1", "")
		w.beat("n1")
		pass(10 * time.Second)
		wantPhase(t, w, "p", api.PhaseRunning, "n1", "")
		stop()
	})
}

func TestTerminatingOnALostNodeIsAbandonedAfterTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		p := pending("p", "")
		p.Status.Phase, p.Status.NodeRef = api.PhaseTerminating, "n1"
		w.Put(node("n1", "8Gi"), p)
		stop := run(t, w, Config{})
		pass(9 * time.Minute)
		wantPhase(t, w, "p", api.PhaseTerminating, "n1", "")
		pass(2 * time.Minute)
		wantPhase(t, w, "p", api.PhaseTerminated, "n1", "")
		stop()
	})
}

func TestAProjectThatOutgrewItsNodeMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "4Gi"), node("n2", "16Gi"), pending("other", "3Gi"), pending("p", ""))
		n2 := node("n2", "16Gi")
		n2.Spec = &carav1.NodeSpec{Unschedulable: true}
		w.Put(n2)
		defer live(w, "n1", "n2")()
		stop := run(t, w, Config{})
		pass(time.Second)
		wantPhase(t, w, "p", api.PhaseScheduled, "n1", "")
		w.Put(node("n2", "16Gi"))
		w.change("p", func(p *carav1.Project) {
			p.Metadata.Generation++
			p.Spec.Services[0].Resources = &carav1.Resources{Requests: &carav1.ResourceList{Memory: "2Gi"}}
		})
		pass(time.Second)
		wantPhase(t, w, "p", api.PhaseScheduled, "n2", "")
		stop()
	})
}
