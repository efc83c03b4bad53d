package apiserver

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

func TestAMoveIsOneCommitAndKeepsWhereItCameFrom(t *testing.T) {
	w := newTown(t)
	fillWith(t, w.house, web("shop"))
	w.running(t, "shop")
	move := func(node string) error {
		_, err := w.scheduler.ScheduleProject(t.Context(), &carav1.ScheduleProjectRequest{
			Name: "shop", ResourceVersion: w.get(t, "shop").GetMetadata().GetResourceVersion(), Action: "Move", NodeRef: node,
			Reason: "NodeDraining", Message: "node n1 is draining",
		})
		return err
	}
	testproblem.Want(t, move("n1"), codes.Aborted, api.TitleConflict)
	testproblem.Want(t, move("nowhere"), codes.NotFound, api.TitleNotFound)
	before := w.db.Cache.Revision()
	if err := move("n2"); err != nil {
		t.Fatal(err)
	}
	st := w.get(t, "shop").GetStatus()
	c := api.FindCondition(st.GetConditions(), api.CondScheduled)
	if w.db.Cache.Revision() != before+1 || st.GetPhase() != api.PhaseScheduled || st.GetNodeRef() != "n2" || st.GetEpoch() != 2 ||
		st.GetMovedFrom() != "n1" || c.GetStatus() != api.StatusTrue || c.GetMessage() != "assigned to n2: node n1 is draining" {
		t.Fatalf("after the move: %v", st)
	}
	if err := move("n1"); err != nil { // on again before it ran: where it last ran stays
		t.Fatal(err)
	}
	if st := w.get(t, "shop").GetStatus(); st.GetMovedFrom() != "n1" || st.GetEpoch() != 3 {
		t.Fatalf("after the second move: %v", st)
	}
	if _, err := w.n1.UpdateProjectStatus(t.Context(), w.reportOf(t, "shop", api.PhaseRunning)); err != nil {
		t.Fatal(err)
	}
	if from := w.get(t, "shop").GetStatus().GetMovedFrom(); from != "" {
		t.Errorf("runs, and still comes from %s", from)
	}
}

// TestADrainThatWaitsSaysWhy while projects are on the node, and nothing is marked as drained.
func TestADrainThatWaitsSaysWhy(t *testing.T) {
	w := newTown(t)
	fillWith(t, w.house, web("shop"))
	w.running(t, "shop")
	n, _ := state.Get[*carav1.Node](w.db.Cache, "n1")
	n = &carav1.Node{
		ApiVersion: api.APIVersion, Kind: api.KindNode, Metadata: &carav1.ObjectMeta{Name: n.GetMetadata().GetName()},
		Spec: &carav1.NodeSpec{Draining: true, DrainMoveData: true},
	}
	if _, err := carav1.NewNodeServiceClient(w.as(t, "admin")).PutNode(t.Context(), &carav1.PutNodeRequest{Node: n}); err != nil {
		t.Fatal(err)
	}
	for _, waits := range []bool{true, false} {
		now, _ := state.Get[*carav1.Node](w.db.Cache, "n1")
		out, err := carav1.NewNodeServiceClient(w.loop(t, "scheduler")).MarkNodeDrained(t.Context(), &carav1.MarkNodeDrainedRequest{
			Name: "n1", ResourceVersion: now.GetMetadata().GetResourceVersion(), Message: "project shop stays", Waits: waits,
		})
		if !waits {
			testproblem.Want(t, err, codes.Aborted, api.TitleConflict)
			continue
		}
		c := api.FindCondition(out.GetStatus().GetConditions(), api.CondDrained)
		if err != nil || c.GetStatus() != api.StatusFalse || c.GetReason() != api.ReasonDraining || c.GetMessage() != "project shop stays" {
			t.Errorf("the condition is %v, %v", c, err)
		}
	}
}

func TestTheConditionDrainedGoesWithTheSpec(t *testing.T) {
	w := newTown(t)
	fillWith(t, w.house, web("shop"))
	w.running(t, "shop")
	nodes, scheduler := carav1.NewNodeServiceClient(w.as(t, "admin")), carav1.NewNodeServiceClient(w.loop(t, "scheduler"))
	put := func(draining bool) {
		t.Helper()
		n, err := nodes.GetNode(t.Context(), &carav1.GetRequest{Name: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		n = proto.CloneOf(n)
		n.ApiVersion, n.Kind, n.Spec = api.APIVersion, api.KindNode, &carav1.NodeSpec{Unschedulable: draining, Draining: draining}
		if _, err := nodes.PutNode(t.Context(), &carav1.PutNodeRequest{Node: n}); err != nil {
			t.Fatal(err)
		}
	}
	mark := func() error {
		n, _ := state.Get[*carav1.Node](w.db.Cache, "n1")
		_, err := scheduler.MarkNodeDrained(t.Context(), &carav1.MarkNodeDrainedRequest{
			Name: "n1", ResourceVersion: n.GetMetadata().GetResourceVersion(), Message: "nothing runs here any more",
		})
		return err
	}
	drained := func() string {
		n, _ := state.Get[*carav1.Node](w.db.Cache, "n1")
		return api.FindCondition(n.GetStatus().GetConditions(), api.CondDrained).GetStatus()
	}
	testproblem.Want(t, mark(), codes.Aborted, api.TitleConflict)
	put(true)
	if drained() != api.StatusFalse {
		t.Errorf("Drained is %q when the drain begins", drained())
	}
	testproblem.Want(t, mark(), codes.Aborted, api.TitleConflict) // shop is there
	if _, err := w.n1.UpdateProjectStatus(t.Context(), w.reportOf(t, "shop", api.PhaseFailed)); err != nil {
		t.Fatal(err)
	}
	if err := mark(); err != nil || drained() != api.StatusTrue {
		t.Errorf("Drained is %q: %v", drained(), err)
	}
	put(false)
	if drained() != "" {
		t.Errorf("Drained is %q on a node that does not drain", drained())
	}
}

func TestWhatServicesRanFromOutlastsAMove(t *testing.T) {
	w := newTown(t)
	fillWith(t, w.house, web("shop"))
	w.bind(t, "shop", "n1")
	report := func(by carav1.ProjectServiceClient, s *carav1.ServiceStatus) {
		t.Helper()
		req := w.reportOf(t, "shop", "")
		req.Services = []*carav1.ServiceStatus{s}
		if _, err := by.UpdateProjectStatus(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	is := func(when, node, digest, hash, container string) {
		t.Helper()
		st := w.get(t, "shop").GetStatus()
		s := st.GetServices()[0]
		if st.GetNodeRef() != node || s.GetImageDigest() != digest || s.GetSpecHash() != hash || s.GetContainerId() != container {
			t.Errorf("%s: on %s: %v", when, st.GetNodeRef(), s)
		}
	}
	schedule := func(action, node string) {
		t.Helper()
		_, err := w.scheduler.ScheduleProject(t.Context(), &carav1.ScheduleProjectRequest{
			Name: "shop", ResourceVersion: w.get(t, "shop").GetMetadata().GetResourceVersion(), Action: action, NodeRef: node,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	report(w.n1, &carav1.ServiceStatus{Name: "web", State: "Running", Image: "nginx:1", ImageDigest: "nginx@sha256:1", SpecHash: "h1", ContainerId: "c1"})
	schedule("Move", "n2")
	is("on its way", "n2", "nginx@sha256:1", "h1", "")
	report(w.n2, &carav1.ServiceStatus{Name: "web", State: "Pulling", Image: "nginx:1"})
	is("while it is pulled", "n2", "nginx@sha256:1", "h1", "")
	schedule("Evict", "")
	is("nowhere", "", "nginx@sha256:1", "h1", "")
	schedule("Bind", "n2")
	report(w.n2, &carav1.ServiceStatus{Name: "web", State: "Running", Image: "nginx:1", ImageDigest: "nginx@sha256:2", SpecHash: "h2", ContainerId: "c2"})
	is("there", "n2", "nginx@sha256:2", "h2", "c2")
	failed := w.reportOf(t, "shop", api.PhaseFailed)
	if _, err := w.n2.UpdateProjectStatus(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	if _, err := w.admin.RetryProject(t.Context(), &carav1.RetryProjectRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	if s := w.get(t, "shop").GetStatus().GetServices(); len(s) > 0 {
		t.Errorf("a retry keeps %v", s)
	}
}
