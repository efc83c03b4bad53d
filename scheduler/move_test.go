package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// receiver gives a node what it needs to receive data.
func receiver(n *carav1.Node) *carav1.Node {
	n.Status.Info.Tools, n.Status.Info.IngressAddress = map[string]string{api.ToolRsync: "3.2.7"}, "192.0.2.1:8081"
	return n
}

// move answers MoveProject. It is called with mu held.
func (w *fakeServer) move(req *carav1.MoveProjectRequest) (*carav1.Project, error) {
	w.moves.Add(1)
	if w.refuse != nil {
		return nil, w.refuse
	}
	p := proto.CloneOf(w.projects[req.Name])
	if p.Status.Move != nil {
		return nil, api.BadState("project %s is moving already", req.Name)
	}
	p.Status.Move = &carav1.Move{Id: "m", From: p.Status.NodeRef, To: req.To, Step: api.MoveRequested}
	w.says(p, api.StatusTrue, api.MoveRequested, "")
	w.put(false, p)
	return p, nil
}

// settleMove answers AcceptMove and RefuseMove.
func (w *fakeServer) settleMove(p *carav1.Project, req *carav1.ScheduleProjectRequest) (*carav1.Project, error) {
	restore := p.Status.Move.GetRestore()
	switch {
	case restore != nil && req.Action == api.ScheduleRefuseMove && p.Status.Move.Step == api.MoveRestoring:
		p.Status.Move = nil
		w.saysRestoring(p, api.StatusFalse, api.ReasonRestoreCancelled, req.Message)
	case p.Status.Move.GetStep() != api.MoveRequested:
		return nil, api.Conflict("no move is requested")
	case req.Action == api.ScheduleRefuseMove:
		p.Status.Move = nil
		w.says(p, api.StatusFalse, api.ReasonMoveFailed, req.Message)
	case restore != nil:
		p.Status.Move.Step, p.Status.Move.To = api.MoveRestoring, req.NodeRef
	case len(p.Status.Volumes) == 0:
		p.Status.NodeRef, p.Status.Move, p.Status.Phase = req.NodeRef, nil, api.PhaseScheduled
		w.says(p, api.StatusFalse, api.ReasonMoved, "")
	default:
		p.Status.Move.Step = api.MoveCopying
	}
	w.writes++
	w.put(false, p)
	return p, nil
}

func (w *fakeServer) says(p *carav1.Project, status, reason, message string) {
	p.Status.Conditions, _ = api.SetCondition(p.Status.Conditions, &carav1.Condition{
		Type: api.CondMoving, Status: status, Reason: reason, Message: message,
	}, time.Now())
}

// ends ends the copy of a project's data: the project runs on its new node, or stays with a reason.
func (w *fakeServer) ends(name, why string) {
	w.change(name, func(p *carav1.Project) {
		to := p.Status.Move.To
		p.Status.Move = nil
		if why != "" {
			w.says(p, api.StatusFalse, api.ReasonMoveFailed, why)
			return
		}
		p.Status.NodeRef = to
		for _, u := range p.Status.Volumes {
			u.Node = to
		}
		w.says(p, api.StatusFalse, api.ReasonMoved, "")
	})
}

// moving names the projects whose data is being copied, sorted.
func (w *fakeServer) moving() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name, p := range w.projects {
		if p.Status.Move.GetStep() == api.MoveCopying {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestAdmit(t *testing.T) {
	nodes := []*Candidate{
		{Name: "n1", Receives: true},
		{Name: "n2", Receives: true, Memory: 100, UsedMemory: 60},
		{Name: "n3"},
		{Name: "n4", Receives: true, Unfit: Cordoned},
	}
	data := []NodeData{{"n1", []string{"db"}}}
	for _, test := range []struct {
		name, to string
		d        Demand
		want     string
	}{
		{"there is room", "n2", Demand{Memory: 40, Data: data}, ""},
		{"there is no room", "n2", Demand{Memory: 41, Data: data}, "project p does not fit node n2: insufficient memory"},
		{"no data, so nothing is received", "n3", Demand{}, ""},
		{"the node cannot receive data", "n3", Demand{Data: data}, "project p does not fit node n3: cannot receive data (needs rsync and cara-agent --ingress-address)"},
		{"cordoned", "n4", Demand{}, "project p does not fit node n4: cordoned"},
		{"selector", "n2", Demand{Selector: map[string]string{"a": "b"}}, "project p does not fit node n2: did not match the node selector"},
		{"unknown", "n5", Demand{}, "there is no node n5"},
	} {
		test.d.Project = "p"
		if got := Admit(test.d, test.to, nodes); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestDueDoublesUpToAnHour(t *testing.T) {
	at := time.Unix(0, 0)
	for failures, want := range map[int]time.Duration{
		0: time.Minute, 1: time.Minute, 2: 2 * time.Minute, 6: 32 * time.Minute, 7: time.Hour, 1000: time.Hour,
	} {
		if got := (attempt{at: at, failures: failures}).due().Sub(at); got != want {
			t.Errorf("after %d failures: %s, want %s", failures, got, want)
		}
	}
}

// TestAMovingProjectCountsOnBothNodes from the decision until the end of the move.
func TestAMovingProjectCountsOnBothNodes(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newFakeServer()
			w.Put(receiver(node("n1", "4Gi")), receiver(node("n2", "4Gi")), withData(running("p", "n1", "3Gi"), "n1", "db"))
			defer live(w, "n1", "n2")()
			stop := run(t, w, Config{})
			w.change("p", func(p *carav1.Project) { p.Status.Move = &carav1.Move{From: "n1", To: "n2", Step: api.MoveRequested} })
			pass(time.Second)
			if got := w.moving(); !slices.Equal(got, []string{"p"}) {
				t.Fatalf("moving are %v", got)
			}
			w.Put(pending("q", "2Gi"))
			pass(time.Second)
			wantPhase(t, w, "q", api.PhasePending, "", "0 of 2 nodes fit: 2 insufficient memory")
			w.Put(receiver(node("n3", "1Gi"))) // nodes that come later count what is there, too
			w.ends("p", map[bool]string{true: "broken"}[fails])
			pass(time.Second)
			wantPhase(t, w, "q", api.PhaseScheduled, map[bool]string{true: "n2", false: "n1"}[fails], "")
			stop()
		})
	}
}

// TestANodeThatJoinsCountsTheMoveToIt: the ledger is the same, whichever it hears of first.
func TestANodeThatJoinsCountsTheMoveToIt(t *testing.T) {
	p := withData(running("p", "n1", "1Gi"), "n1", "db")
	p.Status.Move = &carav1.Move{From: "n1", To: "n2", Step: api.MoveSwitching}
	l := newLedger()
	l.setProject("p", p, 1)
	for _, name := range []string{"n1", "n2", "n3"} {
		l.setNode(name, node(name, "8Gi"))
	}
	for name, want := range map[string]int64{"n1": 1, "n2": 1, "n3": 0} {
		if c := l.nodes[name]; c.Projects != want || c.UsedMemory != want<<30 || c.UsedSubnets != want {
			t.Errorf("%s has %d projects with %d bytes, want %d", name, c.Projects, c.UsedMemory, want)
		}
	}
	l.setProject("p", nil, 2)
	for name, c := range l.nodes {
		if c.Projects != 0 || c.UsedMemory != 0 || len(l.on[name]) > 0 {
			t.Errorf("%s still has %d projects", name, c.Projects)
		}
	}
}

func TestARequestedMoveIsRefusedWithTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.Put(receiver(node("n1", "4Gi")), receiver(node("n2", "1Gi")), withData(running("p", "n1", "3Gi"), "n1", "db"), running("q", "n1", ""), pending("r", "8Gi"))
		defer live(w, "n1", "n2")()
		stop := run(t, w, Config{})
		for _, name := range []string{"p", "q", "r"} {
			w.change(name, func(p *carav1.Project) { p.Status.Move = &carav1.Move{To: "n2", Step: api.MoveRequested} })
		}
		pass(time.Minute)
		c := api.FindCondition(w.project("p").Status.Conditions, api.CondMoving)
		if w.project("p").Status.Move != nil || c.GetMessage() != "project p does not fit node n2: insufficient memory" {
			t.Errorf("p has the move %v and %v", w.project("p").Status.Move, c)
		}
		wantPhase(t, w, "q", api.PhaseScheduled, "n2", "")
		wantPhase(t, w, "r", api.PhasePending, "", "0 of 2 nodes fit: 2 insufficient memory")
		stop()
	})
}

// TestADrainMovesData so many at a time, and only if it is asked to.
func TestADrainMovesData(t *testing.T) {
	for _, parallel := range []int32{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			w := newFakeServer()
			w.Put(receiver(node("n1", "64Gi")), receiver(node("n2", "64Gi")), node("n3", "64Gi"))
			for i := range 4 {
				w.Put(withData(running(fmt.Sprint("p", i), "n1", "1Gi"), "n1", "db"))
			}
			defer live(w, "n1", "n2", "n3")()
			stop := run(t, w, Config{})
			w.Put(draining(receiver(node("n1", "64Gi")), parallel))
			pass(time.Minute)
			if w.moves.Load() != 0 {
				t.Fatalf("%d moves of data that nobody asked for", w.moves.Load())
			}
			n1 := draining(receiver(node("n1", "64Gi")), parallel)
			n1.Spec.DrainMoveData = true
			w.Put(n1)
			for left := 4; left > 0; left-- {
				pass(time.Second)
				now := w.moving()
				if len(now) != min(left, int(parallel)) || w.isDrained("n1") {
					t.Fatalf("%v move with %d left, drained: %t", now, left, w.isDrained("n1"))
				}
				w.ends(now[0], "")
			}
			pass(time.Second)
			if got := w.on("n2", api.PhaseRunning); len(got) != 4 || !w.isDrained("n1") || w.moves.Load() != 4 {
				t.Errorf("n2 has %v after %d moves, drained: %t", got, w.moves.Load(), w.isDrained("n1"))
			}
			stop()
		})
	}
}

// TestADrainRepeatsAFailedMoveLater, says so, and moves the others meanwhile.
func TestADrainRepeatsAFailedMoveLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		n1 := draining(receiver(node("n1", "64Gi")), 1)
		n1.Spec.DrainMoveData = true
		w.Put(n1, receiver(node("n2", "64Gi")), withData(running("a", "n1", ""), "n1", "db"), withData(running("b", "n1", ""), "n1", "db"))
		defer live(w, "n1", "n2")()
		stop := run(t, w, Config{})
		pass(time.Second)
		w.ends("a", "no space on node n2")
		pass(time.Second)
		if got := w.moving(); !slices.Equal(got, []string{"b"}) {
			t.Fatalf("moving are %v", got)
		}
		w.ends("b", "")
		pass(30 * time.Second)
		says := func() string {
			return api.FindCondition(w.project("a").Status.Conditions, api.CondScheduled).GetMessage()
		}
		if got := says(); !strings.HasPrefix(got, "node n1 is draining, and the project stays: no space on node n2; the drain tries again at ") {
			t.Errorf("it says %q", got)
		}
		drained := func() string {
			w.mu.Lock()
			defer w.mu.Unlock()
			return api.FindCondition(w.nodes["n1"].Status.Conditions, api.CondDrained).GetMessage()
		}
		if got := drained(); !strings.HasPrefix(got, "project a stays: no space on node n2; the drain tries again at ") {
			t.Errorf("the node says %q", got)
		}
		for _, wait := range []time.Duration{1, 2, 4} { // minutes
			before := w.moves.Load()
			if pass(wait*time.Minute - 40*time.Second); w.moves.Load() != before {
				t.Fatalf("repeated before %s", wait*time.Minute)
			}
			pass(time.Minute)
			if got := w.moving(); !slices.Equal(got, []string{"a"}) || w.moves.Load() != before+1 {
				t.Fatalf("moving are %v after %s", got, wait*time.Minute)
			}
			if got := drained(); got != "its projects are leaving" {
				t.Errorf("the node says %q while a moves", got)
			}
			w.ends("a", "no space on node n2")
			pass(time.Second)
		}
		if w.waits.Load() > 10 { // once for each change
			t.Errorf("the drain wrote %d times what it waits for", w.waits.Load())
		}
		stop()
	})
}

// TestADrainToldThatDataCannotMove does not ask again at once.
func TestADrainToldThatDataCannotMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		w.refuse = api.BadState("node n1 has no rsync")
		n1 := draining(receiver(node("n1", "64Gi")), 1)
		n1.Spec.DrainMoveData = true
		w.Put(n1, receiver(node("n2", "64Gi")), withData(running("a", "n1", ""), "n1", "db"))
		defer live(w, "n1", "n2")()
		stop := run(t, w, Config{})
		pass(50 * time.Second)
		if w.moves.Load() != 1 {
			t.Errorf("asked %d times", w.moves.Load())
		}
		wantPhase(t, w, "a", api.PhaseRunning, "n1", "node n1 is draining, and the project stays: node n1 has no rsync; the drain tries again at 2000-01-01T00:01:00Z")
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		pass(time.Minute)
		if got := w.moving(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("moving are %v", got)
		}
		stop()
	})
}

// TestADrainFindsNoNodeThatReceivesData and says so.
func TestADrainFindsNoNodeThatReceivesData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeServer()
		n1 := draining(node("n1", "64Gi"), 1)
		n1.Spec.DrainMoveData = true
		w.Put(n1, node("n2", "64Gi"), withData(running("a", "n1", ""), "n1", "db"))
		defer live(w, "n1", "n2")()
		stop := run(t, w, Config{})
		pass(time.Second)
		wantPhase(t, w, "a", api.PhaseRunning, "n1", "node n1 is draining, and the project stays: 0 of 2 nodes fit: 1 draining, 1 cannot receive data (needs rsync and cara-agent --ingress-address)")
		w.Put(receiver(node("n2", "64Gi")))
		pass(time.Second)
		if got := w.moving(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("moving are %v", got)
		}
		stop()
	})
}

func TestWaitsText(t *testing.T) {
	stays := func(names ...string) (all []Departure) {
		for _, name := range names {
			all = append(all, Departure{Project: name, Why: "why"})
		}
		return append(all, Departure{Project: "goes", Node: "n2"})
	}
	for want, leave := range map[string][]Departure{
		"its projects are leaving":                   stays(),
		"project a stays: why; project b stays: why": stays("b", "a"),
		"project a stays: why; project b stays: why; project c stays: why; 2 more projects stay": stays("e", "d", "c", "b", "a"),
	} {
		if got := waitsText(leave); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
