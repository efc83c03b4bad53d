package apiserver

import (
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/join"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// moving is a cluster in which shop runs on n1 with the Managed volume db, and n2 can receive it.
type moving struct {
	*data
	two     *fakeAgent
	nodes   [2]join.Config
	conns   [2]*grpc.ClientConn
	run     *carav1.Assignment // the newest assignment of shop to n1
	uid     string             // of the volume on n1
	epoch   int32
	project carav1.ProjectServiceClient
}

func newMoving(t *testing.T, reclaim string) *moving {
	t.Helper()
	c := newCluster(t, nil)
	m := &moving{data: &data{cluster: c}, nodes: [2]join.Config{c.joinConfig(t, "n1"), c.joinConfig(t, "n2")}}
	m.connect(t)
	m.one.synced()
	m.two.synced()
	m.inventory(t, m.two)
	m.inventory(t, m.one)
	c.create(t, db(reclaim))
	eventually(t, "both nodes have sent their inventories", func() bool {
		return c.objects.Live.Inventories.Of("n1") && c.objects.Live.Inventories.Of("n2")
	})
	c.bind(t, "shop", "n1")
	m.run = m.one.assignment()
	m.uid = m.volume(t, "shop.db").GetMetadata().GetUid()
	m.inventory(t, m.one, m.uid)
	eventually(t, "the volume is made", func() bool { return api.VolumeUse(m.shop(t), "db").GetMade() })
	if err := m.one.report(m.run, api.PhaseRunning); err != nil {
		t.Fatal(err)
	}
	m.epoch = m.shop(t).GetStatus().GetEpoch()
	return m
}

// connect connects both agents to the server.
func (m *moving) connect(t *testing.T) {
	t.Helper()
	m.project = carav1.NewProjectServiceClient(m.admin(t))
	for i := range m.nodes {
		m.nodes[i].Server = "http://" + m.addr
		creds, err := join.Join(t.Context(), m.nodes[i])
		if err != nil {
			t.Fatal(err)
		}
		m.conns[i] = dialAs(t, creds)
	}
	m.one, m.two = connectAgent(t, m.conns[0], "a"), connectAgent(t, m.conns[1], "b")
}

// inventory reports the volumes db of shop with some uids.
func (m *moving) inventory(t *testing.T, a *fakeAgent, uids ...string) {
	t.Helper()
	list := &carav1.VolumeInventory{}
	for _, uid := range uids {
		list.Volumes = append(list.Volumes, &carav1.HeldVolume{Uid: uid, Project: "shop", Name: "db", Owner: "user/admin", SizeBytes: proto.Int64(42)})
	}
	if err := a.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{Volumes: list}}); err != nil {
		t.Fatal(err)
	}
}

func (m *moving) request(t *testing.T) *carav1.Move {
	t.Helper()
	p, err := m.project.MoveProject(t.Context(), &carav1.MoveProjectRequest{Name: "shop", To: "n2"})
	if err != nil {
		t.Fatal(err)
	}
	return p.GetStatus().GetMove()
}

// accept is the scheduler's decision. It returns the move in the step Copying, as both agents are told.
func (m *moving) accept(t *testing.T) *carav1.Move {
	t.Helper()
	if err := m.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleAcceptMove, NodeRef: "n2"}); err != nil {
		t.Fatal(err)
	}
	now := m.told(t, api.MoveCopying)
	got := m.two.receives()
	want := &carav1.ReceiveVolume{Uid: now.GetVolumes()[0].GetNewUid(), Project: "shop", Name: "db", Owner: "user/admin", From: "n1"}
	if !proto.Equal(got, want) {
		t.Fatalf("n2 is told to receive %v, want %v", got, want)
	}
	return now
}

// told returns the move of the next assignment of n1, which must be in a step, or have no move if the step is "".
func (m *moving) told(t *testing.T, step string) *carav1.Move {
	t.Helper()
	for m.run = nil; m.run == nil; {
		m.run = m.one.next().GetAssignment()
	}
	now := m.run.GetProject().GetStatus().GetMove()
	if now.GetStep() != step {
		t.Fatalf("n1 is told %v, want the step %q", now, step)
	}
	if step != "" && now.GetAddress() != "192.0.2.1:8081" {
		t.Fatalf("n1 is told the address %q", now.GetAddress())
	}
	return now
}

// receives returns the next request to receive a volume.
func (a *fakeAgent) receives() *carav1.ReceiveVolume {
	a.t.Helper()
	for {
		if m := a.next().GetReceiveVolume(); m != nil {
			return m
		}
	}
}

func (m *moving) copies(t *testing.T, now *carav1.Move) {
	t.Helper()
	uid := now.GetVolumes()[0].GetNewUid()
	m.inventory(t, m.two, uid)
	eventually(t, "the copy is made", func() bool {
		v, _ := state.Get[*carav1.Volume](m.db.Cache, api.AsideName("shop", "db", uid))
		return v.GetStatus().GetMade() && m.objects.Live.Inventories.Of("n2") // the second comes last
	})
}

// reports sends a result of n1 about a move.
func (m *moving) reports(t *testing.T, id, result string) {
	t.Helper()
	if err := m.tryReport(t, id, result); err != nil {
		t.Fatal(err)
	}
}

func (m *moving) tryReport(t *testing.T, id, result string) error {
	t.Helper()
	p := m.run.GetProject()
	_, err := carav1.NewProjectServiceClient(m.conns[0]).UpdateProjectStatus(t.Context(), &carav1.UpdateProjectStatusRequest{
		Name: "shop", Uid: p.GetMetadata().GetUid(), Epoch: p.GetStatus().GetEpoch(), ObservedGeneration: p.GetMetadata().GetGeneration(),
		Move: &carav1.MoveReport{Id: id, Result: result, Message: "says n1"},
	})
	return err
}

// switches brings shop into the step Switching.
func (m *moving) switches(t *testing.T) *carav1.Move {
	t.Helper()
	m.request(t)
	now := m.accept(t)
	m.copies(t, now)
	m.reports(t, now.GetId(), api.MoveCopied)
	return m.told(t, api.MoveSwitching)
}

// stayed checks that shop is on n1 with its old data, has no move, and that the copy is being deleted.
func (m *moving) stayed(t *testing.T, copied *carav1.Move, reason string) {
	t.Helper()
	st := m.shop(t).GetStatus()
	c := api.FindCondition(st.GetConditions(), api.CondMoving)
	if st.GetMove() != nil || st.GetNodeRef() != "n1" || st.GetEpoch() != m.epoch || c.GetStatus() != api.StatusFalse || c.GetReason() != reason {
		t.Errorf("shop is on %s in epoch %d with the move %v and the condition %v, want the reason %s", st.GetNodeRef(), st.GetEpoch(), st.GetMove(), c, reason)
	}
	if u := api.VolumeUse(m.shop(t), "db"); u.GetUid() != m.uid || u.GetNode() != "n1" || !u.GetMade() {
		t.Errorf("shop uses %v", u)
	}
	if v := m.volume(t, "shop.db"); v.GetMetadata().GetUid() != m.uid || v.GetStatus().GetState() != api.VolumeInUse {
		t.Errorf("the volume is %v", v)
	}
	for _, moved := range copied.GetVolumes() {
		name := api.AsideName("shop", "db", moved.GetNewUid())
		if v := m.volume(t, name); v.GetStatus().GetState() != api.VolumeDeleting {
			t.Errorf("the copy is %v", v)
		}
		if got := m.two.doomed(); got.GetUid() != moved.GetNewUid() {
			t.Errorf("n2 is asked to delete %v", got)
		}
		m.inventory(t, m.two)
		m.vanishes(t, name)
	}
	m.listsVolumes(t, "shop.db")
}

func (m *moving) listsVolumes(t *testing.T, want ...string) {
	t.Helper()
	all := state.List[*carav1.Volume](m.db.Cache, "")
	var names []string
	for _, v := range all {
		names = append(names, v.GetMetadata().GetName())
	}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("the volumes are %q, want %q", names, want)
	}
}

// TestMove: each step of a move, with the reports that arrive twice.
func TestMove(t *testing.T) {
	m := newMoving(t, api.ReclaimDelete)
	if asked := m.request(t); asked.GetStep() != api.MoveRequested || asked.GetFrom() != "n1" || asked.GetTo() != "n2" || asked.GetActor() != "user/admin" || len(asked.GetVolumes()) > 0 {
		t.Errorf("requested %v", asked)
	}
	_, err := m.project.MoveProject(t.Context(), &carav1.MoveProjectRequest{Name: "shop", To: "n2"})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	now := m.accept(t)
	moved := now.GetVolumes()[0]
	aside := api.AsideName("shop", "db", moved.GetNewUid())
	if v := m.volume(t, aside); v.GetStatus().GetState() != api.VolumeCopying || v.GetStatus().GetNode() != "n2" || v.GetStatus().GetProjectUid() != "" || moved.GetUid() != m.uid {
		t.Errorf("the copy is %v", v)
	}
	m.reports(t, now.GetId(), api.MoveCopied) // n2 has not reported the copy yet
	if step := m.shop(t).GetStatus().GetMove().GetStep(); step != api.MoveCopying {
		t.Fatalf("the step is %s before n2 has the copy", step)
	}
	m.copies(t, now)
	m.reports(t, now.GetId(), api.MoveVerified) // the project runs, so this is not about what n1 was told
	m.reports(t, now.GetId(), api.MoveCopied)
	m.told(t, api.MoveSwitching)
	m.reports(t, now.GetId(), api.MoveCopied)
	m.reports(t, "another", api.MoveVerified)
	if st := m.shop(t).GetStatus(); st.GetMove().GetStep() != api.MoveSwitching || st.GetNodeRef() != "n1" {
		t.Fatalf("the project is %v", st)
	}
	m.reports(t, now.GetId(), api.MoveVerified)
	m.moved(t, moved)
	testproblem.Want(t, m.tryReport(t, now.GetId(), api.MoveVerified), codes.Aborted, api.TitleStaleEpoch)

	// n2 starts the project when nothing is left on n1.
	if u := m.one.unassigned(); u.GetEpoch() != m.epoch+1 {
		t.Errorf("n1 is told %v", u)
	}
	err = m.one.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{}, Released: []*carav1.Released{{
		Name: "shop", Uid: m.run.GetProject().GetMetadata().GetUid(), Epoch: m.epoch + 1,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	a := m.two.assignment()
	if u := api.VolumeUse(a.GetProject(), "db"); u.GetUid() != moved.GetNewUid() || !u.GetMade() || a.GetProject().GetStatus().GetMove() != nil {
		t.Errorf("n2 is assigned %v", a)
	}
}

// moved checks what the end of a move leaves behind.
func (m *moving) moved(t *testing.T, moved *carav1.MovedVolume) {
	t.Helper()
	st := m.shop(t).GetStatus()
	if st.GetMove() != nil || st.GetNodeRef() != "n2" || st.GetEpoch() != m.epoch+1 || st.GetPhase() != api.PhaseScheduled || st.GetHeldBy() != "n1" || st.GetMovedFrom() != "n1" {
		t.Errorf("the project is %v", st)
	}
	if c := api.FindCondition(st.GetConditions(), api.CondMoving); c.GetStatus() != api.StatusFalse || c.GetReason() != api.ReasonMoved {
		t.Errorf("the condition is %v", c)
	}
	if u := api.VolumeUse(m.shop(t), "db"); u.GetUid() != moved.GetNewUid() || u.GetNode() != "n2" || !u.GetMade() {
		t.Errorf("the project uses %v", u)
	}
	v, old := m.volume(t, "shop.db").GetStatus(), m.volume(t, api.AsideName("shop", "db", m.uid))
	if v.GetState() != api.VolumeInUse || v.GetNode() != "n2" || v.GetProjectUid() != m.shop(t).GetMetadata().GetUid() || !v.GetMade() || v.GetCopy() {
		t.Errorf("the new volume is %v", v)
	}
	if old.GetStatus().GetState() != api.VolumeRetained || old.GetMetadata().GetUid() != m.uid || old.GetStatus().GetProjectUid() != "" || old.GetStatus().GetMovedTo() != "n2" || old.GetStatus().GetNode() != "n1" {
		t.Errorf("the old volume is %v", old)
	}
	m.listsVolumes(t, "shop.db", api.AsideName("shop", "db", m.uid))
}

// TestMoveIsCancelled: whatever ends a move leaves the project on its old node with its data, and deletes the copy.
func TestMoveIsCancelled(t *testing.T) {
	cancel := func(t *testing.T, m *moving) {
		t.Helper()
		if _, err := m.project.CancelMove(t.Context(), &carav1.GetRequest{Name: "shop"}); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		step, reason string
		end          func(t *testing.T, m *moving)
	}{
		"cancelled while requested": {api.MoveRequested, api.ReasonMoveCancelled, cancel},
		"cancelled while copying":   {api.MoveCopying, api.ReasonMoveCancelled, cancel},
		"cancelled while switching": {api.MoveSwitching, api.ReasonMoveCancelled, cancel},
		"refused": {api.MoveRequested, api.ReasonMoveFailed, func(t *testing.T, m *moving) {
			t.Helper()
			if err := m.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleRefuseMove, Message: "no room"}); err != nil {
				t.Fatal(err)
			}
		}},
		"failed": {api.MoveSwitching, api.ReasonMoveFailed, func(t *testing.T, m *moving) {
			t.Helper()
			m.reports(t, m.shop(t).GetStatus().GetMove().GetId(), api.MoveFailed)
		}},
		"the new node was deleted": {api.MoveRequested, api.ReasonMoveFailed, func(t *testing.T, m *moving) {
			t.Helper()
			if _, err := carav1.NewNodeServiceClient(m.admin(t)).DeleteNode(t.Context(), &carav1.DeleteRequest{Name: "n2"}); err != nil {
				t.Fatal(err)
			}
		}},
		"the new node was cordoned before the scheduler decided": {api.MoveRequested, api.ReasonMoveFailed, func(t *testing.T, m *moving) {
			t.Helper()
			m.nodeSpec(t, "n2", &carav1.NodeSpec{Unschedulable: true})
			if err := m.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleAcceptMove, NodeRef: "n2"}); err != nil {
				t.Fatal(err)
			}
		}},
		"the new node drains": {api.MoveCopying, api.ReasonMoveFailed, func(t *testing.T, m *moving) {
			t.Helper()
			m.copies(t, m.shop(t).GetStatus().GetMove())
			m.nodeSpec(t, "n2", &carav1.NodeSpec{Draining: true})
			m.reports(t, m.shop(t).GetStatus().GetMove().GetId(), api.MoveCopied)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMoving(t, "")
			now := m.until(t, test.step)
			test.end(t, m)
			m.stayed(t, now, test.reason)
			if test.step != api.MoveRequested {
				m.told(t, "")
			}
			_, err := m.project.CancelMove(t.Context(), &carav1.GetRequest{Name: "shop"})
			testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
			if now.GetId() != "" && test.step != api.MoveRequested {
				m.reports(t, now.GetId(), api.MoveVerified) // was on its way
				m.listsVolumes(t, "shop.db")
			}
		})
	}
}

// until brings shop into a step of a move.
func (m *moving) until(t *testing.T, step string) *carav1.Move {
	t.Helper()
	switch step {
	case api.MoveRequested:
		return m.request(t)
	case api.MoveCopying:
		m.request(t)
		return m.accept(t)
	}
	return m.switches(t)
}

func (m *moving) nodeSpec(t *testing.T, name string, spec *carav1.NodeSpec) {
	t.Helper()
	n := &carav1.Node{ApiVersion: api.APIVersion, Kind: api.KindNode, Metadata: &carav1.ObjectMeta{Name: name}, Spec: spec}
	if _, err := carav1.NewNodeServiceClient(m.admin(t)).PutNode(t.Context(), &carav1.PutNodeRequest{Node: n}); err != nil {
		t.Fatal(err)
	}
}
