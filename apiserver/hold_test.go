package apiserver

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// pair is a cluster of two nodes whose agents are connected, with a project that runs on the first.
type pair struct {
	*cluster
	one, two *fakeAgent
	conns    [2]*grpc.ClientConn
	first    *carav1.Assignment
}

func newPair(t *testing.T, c *cluster) *pair {
	t.Helper()
	p := &pair{cluster: c}
	p.conns = [2]*grpc.ClientConn{c.node(t, "n1"), c.node(t, "n2")}
	p.one, p.two = connectAgent(t, p.conns[0], "a"), connectAgent(t, p.conns[1], "b")
	p.one.synced()
	p.two.synced()
	c.create(t, web("shop"))
	c.bind(t, "shop", "n1")
	p.first = p.one.assignment()
	if err := p.one.report(p.first, api.PhaseRunning); err != nil {
		t.Fatal(err)
	}
	return p
}

func (c *cluster) shop(t *testing.T) *carav1.Project {
	t.Helper()
	p, ok := state.Get[*carav1.Project](c.db.Cache, "shop")
	if !ok {
		t.Fatal("there is no project shop")
	}
	return p
}

func (c *cluster) moveShop(t *testing.T, node string) {
	t.Helper()
	loop, err := c.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	_, err = carav1.NewProjectServiceClient(loop).ScheduleProject(t.Context(), &carav1.ScheduleProjectRequest{
		Name: "shop", ResourceVersion: c.shop(t).GetMetadata().GetResourceVersion(), Action: "Move", NodeRef: node, Message: "draining",
	})
	if err != nil {
		t.Fatal(err)
	}
}

// unassigned returns the next message that a project is no longer assigned to the node.
func (a *fakeAgent) unassigned() *carav1.Unassigned {
	a.t.Helper()
	for {
		m := a.next()
		if u := m.GetUnassigned(); u != nil {
			return u
		}
		if m.GetAssignment() != nil {
			a.t.Fatalf("assigned %v", m)
		}
	}
}

// releases reports that nothing is left of shop, and waits until the server has handled it.
func (p *pair) releases(t *testing.T, epoch int32) {
	t.Helper()
	err := p.one.stream.Send(&carav1.ConnectRequest{
		InstanceId: "a", Heartbeat: &carav1.Heartbeat{},
		Released: []*carav1.Released{{Name: "shop", Uid: p.first.GetProject().GetMetadata().GetUid(), Epoch: epoch}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// waits checks for a while that an agent does not get a project that it must not have.
func (a *fakeAgent) waits(t *testing.T, c *cluster) {
	t.Helper()
	c.create(t, web("after")) // sent after anything about shop
	c.bind(t, "after", "n2")
	if got := a.assignment().GetProject().GetMetadata().GetName(); got != "after" {
		t.Fatalf("%s is told of %s, whose containers another node still has", "n2", got)
	}
}

// TestAMoveWaitsForTheOldNode: the new node gets a project when the old one has reported that nothing is left of it.
func TestAMoveWaitsForTheOldNode(t *testing.T) {
	c := newCluster(t, nil)
	p := newPair(t, c)
	c.moveShop(t, "n2")
	if u := p.one.unassigned(); u.GetName() != "shop" || u.GetEpoch() != 2 || u.GetUid() != p.first.GetProject().GetMetadata().GetUid() {
		t.Fatalf("unassigned %v", u)
	}
	p.two.waits(t, c)
	st := c.shop(t).GetStatus()
	ready := api.FindCondition(st.GetConditions(), api.CondReady)
	if st.GetHeldBy() != "n1" || ready.GetReason() != "Moving" || ready.GetMessage() != "waits until node n1 has stopped what it ran of it" {
		t.Errorf("status %v", st)
	}
	nodes := carav1.NewNodeServiceClient(c.admin(t))
	_, err := nodes.DeleteNode(t.Context(), &carav1.DeleteRequest{Name: "n1"})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)

	p.releases(t, 1) // of an older assignment
	// After a reconnect the agent is asked again.
	p.one = connectAgent(t, p.conns[0], "a2")
	if assigned, _ := p.one.syncedAfter(func(u *carav1.Unassigned) {
		if u.GetName() != "shop" || u.GetEpoch() != 2 {
			t.Errorf("asked again: %v", u)
		}
	}); len(assigned) != 0 {
		t.Errorf("assigned %v", assigned)
	}
	p.releases(t, 2)
	if a := p.two.assignment(); a.GetProject().GetMetadata().GetName() != "shop" || a.GetProject().GetStatus().GetEpoch() != 2 {
		t.Errorf("assigned %v", a)
	}
	if held := c.shop(t).GetStatus().GetHeldBy(); held != "" {
		t.Errorf("held by %s still", held)
	}
}

// TestAMoveBackWaitsForNobody: a node that has the containers replaces them itself.
func TestAMoveBackWaitsForNobody(t *testing.T) {
	c := newCluster(t, nil)
	p := newPair(t, c)
	c.moveShop(t, "n2")
	p.one.unassigned()
	c.moveShop(t, "n1")
	if a := p.one.assignment(); a.GetProject().GetStatus().GetEpoch() != 3 || a.GetProject().GetStatus().GetHeldBy() != "" {
		t.Errorf("assigned %v", a)
	}
	c.moveShop(t, "n2")
	p.one.unassigned()
	p.releases(t, 2) // a late report about the first assignment
	p.two.waits(t, c)
}

// TestALostNodeHoldsNothing: neither if it is lost while a project waits for it, nor if the server was killed in between.
func TestALostNodeHoldsNothing(t *testing.T) {
	dir := t.TempDir()
	c := openCluster(t, dir, nil)
	p := newPair(t, c)
	c.moveShop(t, "n2")
	p.one.unassigned()
	loop, err := c.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	n1, _ := state.Get[*carav1.Node](c.db.Cache, "n1")
	_, err = carav1.NewNodeServiceClient(loop).MarkNodeNotReady(t.Context(), &carav1.MarkNodeNotReadyRequest{
		Name: "n1", LastHeartbeat: c.objects.OverlayNode(n1).GetStatus().GetLastHeartbeat(), Message: "no heartbeat for 20s",
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := p.two.assignment(); a.GetProject().GetMetadata().GetName() != "shop" {
		t.Errorf("assigned %v", a)
	}
	err = c.db.Transact(identity.WithActor(t.Context(), identity.Actor{Name: "user/admin", Role: api.RoleAdmin}), func(x *state.Tx) error {
		shop, _ := state.Read[*carav1.Project](x, "shop")
		next := proto.CloneOf(shop)
		next.Status.HeldBy = "n1"
		x.Put(next)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c.stop()
	again := openCluster(t, dir, nil)
	eventually(t, "the lost node holds the project no longer", func() bool { return again.shop(t).GetStatus().GetHeldBy() == "" })
}
