package scheduler

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestRelocate(t *testing.T) {
	lost := func(name string) *Candidate { return &Candidate{Name: name, Unfit: NotReady} }
	fits := func(name string) *Candidate { return &Candidate{Name: name, Memory: 4 * gib} }
	tests := map[string]struct {
		demand Demand
		nodes  []*Candidate
		want   Relocation
	}{
		"another node fits":               {Demand{Memory: gib}, []*Candidate{lost("n1"), fits("n2")}, Relocation{Node: "n2"}},
		"half of the nodes are lost":      {Demand{}, []*Candidate{lost("n1"), lost("n2"), fits("n3"), fits("n4")}, Relocation{Node: "n3"}},
		"all but one are lost":            {Demand{}, []*Candidate{lost("n1"), lost("n2"), fits("n3")}, Relocation{Node: "n3"}},
		"there is one node":               {Demand{}, []*Candidate{lost("n1")}, Relocation{Why: "there is no other node"}},
		"all nodes are lost":              {Demand{}, []*Candidate{lost("n1"), lost("n2"), lost("n3")}, Relocation{Why: "all 3 nodes are lost, so nothing is moved"}},
		"the other is full":               {Demand{Memory: 8 * gib}, []*Candidate{lost("n1"), fits("n2")}, Relocation{Why: "of the other nodes 0 of 1 nodes fit: 1 insufficient memory"}},
		"the other is cordoned":           {Demand{}, []*Candidate{lost("n1"), {Name: "n2", Unfit: Cordoned}}, Relocation{Why: "of the other nodes 0 of 1 nodes fit: 1 cordoned"}},
		"the others do not match":         {Demand{Selector: map[string]string{"disk": "ssd"}}, []*Candidate{lost("n1"), fits("n2"), lost("n3")}, Relocation{Why: "of the other nodes 0 of 2 nodes fit: 1 NotReady, 1 did not match the node selector"}},
		"the data is on the lost node":    {Demand{Data: []NodeData{{"n1", []string{"db"}}}}, []*Candidate{lost("n1"), fits("n2")}, Relocation{Why: "and waits until the node returns: its data is on n1 (volume db)"}},
		"the data is on another node":     {Demand{Data: []NodeData{{"n3", []string{"db"}}}}, []*Candidate{lost("n1"), fits("n2"), fits("n3"), fits("n4")}, Relocation{Node: "n3"}},
		"the lost node still has a place": {Demand{}, []*Candidate{fits("n1"), {Name: "n2", Unfit: Cordoned}}, Relocation{Why: "of the other nodes 0 of 1 nodes fit: 1 cordoned"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.demand.Project = "p"
			got := Relocate(tt.demand, "n1", tt.nodes, Spread)
			if tt.want.Node == "n3" && got.Node == "n4" { // they are alike
				got.Node = "n3"
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestALostNodeKeepsItsProjectsWhereNoOtherFits: the projects stay assigned in the same epoch, report why, and continue
// unchanged when the node returns.
func TestALostNodeKeepsItsProjectsWhereNoOtherFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "8Gi"), running("p", "n1", "1Gi"))
		silence := live(w, "n1")
		stop := run(t, w, Config{})
		pass(30 * time.Second)
		silence()
		pass(90 * time.Second)
		wantPhase(t, w, "p", api.PhaseRunning, "n1", "")
		c := api.FindCondition(w.project("p").GetStatus().GetConditions(), api.CondScheduled)
		if c.GetStatus() != api.StatusTrue || c.GetReason() != "NodeLost" ||
			!strings.HasPrefix(c.GetMessage(), "node n1 is lost: ") || !strings.HasSuffix(c.GetMessage(), "; the project stays, there is no other node") {
			t.Errorf("the condition is %v", c)
		}
		writes := w.writes
		pass(time.Hour)
		if w.writes != writes {
			t.Errorf("%d writes although nothing changed", w.writes-writes)
		}
		defer live(w, "n1")()
		pass(time.Second)
		wantPhase(t, w, "p", api.PhaseRunning, "n1", "stays on n1")
		if e := w.project("p").GetStatus().GetEpoch(); e != 1 {
			t.Errorf("epoch %d, want 1: another one replaces all containers", e)
		}
		stop()
	})
}

// TestARoomThatComesLaterIsUsed by a project whose node is lost.
func TestARoomThatComesLaterIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "8Gi"), node("n2", "1Gi"), running("p", "n1", "2Gi"))
		defer live(w, "n2")()
		stop := run(t, w, Config{})
		pass(2 * time.Minute)
		wantPhase(t, w, "p", api.PhaseRunning, "n1", "")
		w.Put(node("n2", "8Gi"))
		pass(time.Second)
		wantPhase(t, w, "p", api.PhaseScheduled, "n2", "")
		stop()
	})
}

// TestNothingMovesWhenAllNodesAreLostAtOnce, nor when they return one after the other: the first node must not get the
// projects that the others still run.
func TestNothingMovesWhenAllNodesAreLostAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		names := []string{"n1", "n2", "n3"}
		for _, n := range names {
			w.Put(node(n, "64Gi"), running("on-"+n, n, "1Gi"))
		}
		silence := live(w, names...)
		stop := run(t, w, Config{})
		pass(30 * time.Second)
		silence()
		pass(10 * time.Minute)
		for _, n := range names {
			wantPhase(t, w, "on-"+n, api.PhaseRunning, n, "")
		}
		for _, n := range names {
			defer live(w, n)()
			pass(20 * time.Second)
		}
		pass(time.Hour)
		for _, n := range names {
			wantPhase(t, w, "on-"+n, api.PhaseRunning, n, "stays on "+n)
			if e := w.project("on-" + n).GetStatus().GetEpoch(); e != 1 {
				t.Errorf("on-%s is in epoch %d, want 1", n, e)
			}
		}
		stop()
	})
}

// TestANodeThatStaysAwayAfterAllWereLost has as long to return as its projects wait, and then is given up.
func TestANodeThatStaysAwayAfterAllWereLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(node("n1", "64Gi"), node("n2", "64Gi"), running("p", "n2", "1Gi"))
		stop := run(t, w, Config{})
		pass(10 * time.Minute)
		defer live(w, "n1")()
		pass(55 * time.Second)
		wantPhase(t, w, "p", api.PhaseRunning, "n2", "")
		pass(10 * time.Second)
		wantPhase(t, w, "p", api.PhaseScheduled, "n1", "")
		stop()
	})
}

// TestAFailedUpdateMovesNowhere: its containers run the previous spec. The project stays on a node that drains, is lost or
// has become too small, reports why, and moves once the update has succeeded.
func TestAFailedUpdateMovesNowhere(t *testing.T) {
	ready := func(status, reason string) func(*carav1.Project) {
		return func(p *carav1.Project) {
			p.Status.Conditions, _ = api.SetCondition(p.GetStatus().GetConditions(), &carav1.Condition{
				Type: api.CondReady, Status: status, Reason: reason,
			}, time.Now())
		}
	}
	for name, tt := range map[string]struct {
		befalls func(w *fakeServer, beat func())
		reason  string
	}{
		"a drain":     {func(w *fakeServer, _ func()) { w.Put(draining(node("n1", "8Gi"), 1)) }, "NodeDraining"},
		"a lost node": {func(_ *fakeServer, silence func()) { silence() }, "NodeLost"},
		"no room": {func(w *fakeServer, _ func()) {
			w.Put(node("n1", "1Mi"))
			w.change("p", func(p *carav1.Project) { p.Status.Phase = api.PhaseScheduled })
		}, "NoLongerFits"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFakeServer()
				p := running("p", "n1", "1Gi")
				ready(api.StatusFalse, api.ReasonUpdateFailed)(p)
				w.Put(node("n1", "8Gi"), node("n2", "8Gi"), p)
				defer live(w, "n2")()
				silence := live(w, "n1")
				if tt.reason != "NodeLost" {
					defer silence()
				}
				stop := run(t, w, Config{})
				pass(time.Second)
				tt.befalls(w, silence)
				pass(5 * time.Minute)
				c := api.FindCondition(w.project("p").GetStatus().GetConditions(), api.CondScheduled)
				if w.project("p").GetStatus().GetNodeRef() != "n1" || c.GetReason() != tt.reason || !strings.Contains(c.GetMessage(), "its last update failed") {
					t.Errorf("it is on %s, and says %v", w.project("p").GetStatus().GetNodeRef(), c)
				}
				if tt.reason == "NodeDraining" {
					w.change("p", ready(api.StatusTrue, "Running"))
					pass(time.Second)
					wantPhase(t, w, "p", api.PhaseScheduled, "n2", "")
				}
				stop()
			})
		})
	}
}
