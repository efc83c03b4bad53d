package apiserver

import (
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// TestAFailedSwitchIsRepeated on the old node, so many times, and ends there.
func TestAFailedSwitchIsRepeated(t *testing.T) {
	m := newMoving(t, "")
	now := m.switches(t)
	for attempt := int32(1); attempt <= 2; attempt++ {
		m.reports(t, now.GetId(), api.MoveInterrupted)
		if got := m.told(t, api.MoveCopying); got.GetAttempts() != attempt || !strings.HasPrefix(got.GetMessage(), "says n1") {
			t.Errorf("after attempt %d n1 is told %v", attempt, got)
		}
		m.reports(t, now.GetId(), api.MoveInterrupted) // again, because the answer was lost
		if got := m.shop(t).GetStatus().GetMove(); got.GetAttempts() != attempt {
			t.Errorf("one failure counts as %d", got.GetAttempts())
		}
		m.reports(t, now.GetId(), api.MoveVerified) // of the attempt before
		m.reports(t, now.GetId(), api.MoveCopied)
		m.told(t, api.MoveSwitching)
	}
	m.reports(t, now.GetId(), api.MoveInterrupted)
	m.stayed(t, now, api.ReasonMoveFailed)
	m.told(t, "")
	if c := api.FindCondition(m.shop(t).GetStatus().GetConditions(), api.CondMoving); !strings.Contains(c.GetMessage(), "says n1 (attempt 3 of 3); the project continues on node n1") {
		t.Errorf("it says %q", c.GetMessage())
	}
}

// TestAMoveToANodeThatIsAway does not leave the project without a node that runs it.
func TestAMoveToANodeThatIsAway(t *testing.T) {
	m := newMoving(t, "")
	m.request(t)
	now := m.accept(t)
	m.copies(t, now)
	m.lose(t, "n2")
	m.reports(t, now.GetId(), api.MoveCopied)
	if step := m.shop(t).GetStatus().GetMove().GetStep(); step != api.MoveCopying {
		t.Fatalf("the step is %s with n2 away", step)
	}
	m.comesBack(t, now)
	m.reports(t, now.GetId(), api.MoveCopied)
	m.told(t, api.MoveSwitching)
	m.lose(t, "n2")
	m.reports(t, now.GetId(), api.MoveVerified)
	if got := m.told(t, api.MoveCopying); got.GetAttempts() != 1 || !strings.Contains(got.GetMessage(), "node n2 became NotReady") {
		t.Errorf("n1 is told %v", got)
	}
	m.comesBack(t, now)
	m.reports(t, now.GetId(), api.MoveCopied)
	m.told(t, api.MoveSwitching)
	m.reports(t, now.GetId(), api.MoveVerified)
	m.moved(t, now.GetVolumes()[0])
}

// lose marks a node as NotReady, as the scheduler does.
func (m *moving) lose(t *testing.T, name string) {
	t.Helper()
	loop, err := m.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	nodes := carav1.NewNodeServiceClient(loop)
	n, err := nodes.GetNode(t.Context(), &carav1.GetRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nodes.MarkNodeNotReady(t.Context(), &carav1.MarkNodeNotReadyRequest{Name: name, LastHeartbeat: n.GetStatus().GetLastHeartbeat()}); err != nil {
		t.Fatal(err)
	}
}

// comesBack connects n2 again, which has the copy.
func (m *moving) comesBack(t *testing.T, now *carav1.Move) {
	t.Helper()
	m.two = connectAgent(t, m.conns[1], "c")
	if got := m.two.receives(); got.GetUid() != now.GetVolumes()[0].GetNewUid() || got.GetFrom() != "n1" {
		t.Errorf("after it has connected again n2 is told %v", got)
	}
	m.copies(t, now)
	eventually(t, "n2 is Ready", func() bool {
		n, _ := state.Get[*carav1.Node](m.db.Cache, "n2")
		return n.GetStatus().GetState() == api.NodeReady
	})
	for m.run.GetProject().GetStatus().GetMove().GetAddress() != "192.0.2.1:8081" {
		m.run = m.one.assignment()
	}
}

// TestAChangeEndsAMove: what makes the copy useless ends the move, and the copy is deleted.
func TestAChangeEndsAMove(t *testing.T) {
	for name, test := range map[string]struct {
		step, reason string
		change       func(t *testing.T, m *moving)
	}{
		"an update adds a volume": {api.MoveCopying, api.ReasonMoveCancelled, func(t *testing.T, m *moving) {
			t.Helper()
			p := db("")
			p.Spec.Volumes = append(p.Spec.Volumes, &carav1.ProjectVolume{Name: "files", Type: api.VolumeManaged})
			m.put(t, p)
		}},
		"an update removes the volume": {api.MoveSwitching, api.ReasonMoveCancelled, func(t *testing.T, m *moving) {
			t.Helper()
			m.put(t, web("shop"))
		}},
		"the project is deleted": {api.MoveSwitching, api.ReasonMoveCancelled, func(t *testing.T, m *moving) {
			t.Helper()
			if _, err := m.project.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop", NoWait: true}); err != nil {
				t.Fatal(err)
			}
		}},
		"the project fails": {api.MoveCopying, api.ReasonMoveCancelled, func(t *testing.T, m *moving) {
			t.Helper()
			if err := m.one.report(m.run, api.PhaseFailed); err != nil {
				t.Fatal(err)
			}
		}},
		"the new node is deleted": {api.MoveSwitching, api.ReasonMoveFailed, func(t *testing.T, m *moving) {
			t.Helper()
			if _, err := carav1.NewNodeServiceClient(m.admin(t)).DeleteNode(t.Context(), &carav1.DeleteRequest{Name: "n2"}); err != nil {
				t.Fatal(err)
			}
		}},
		"the copy is removed by hand": {api.MoveSwitching, api.ReasonMoveFailed, func(t *testing.T, m *moving) {
			t.Helper()
			m.inventory(t, m.two)
			eventually(t, "the move has ended", func() bool { return m.shop(t).GetStatus().GetMove() == nil })
		}},
		"the data is lost": {api.MoveCopying, api.ReasonMoveFailed, func(t *testing.T, m *moving) {
			t.Helper()
			m.inventory(t, m.one)
			eventually(t, "the move has ended", func() bool { return m.shop(t).GetStatus().GetMove() == nil })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMoving(t, "")
			now := m.until(t, test.step)
			test.change(t, m)
			st := m.shop(t).GetStatus()
			c := api.FindCondition(st.GetConditions(), api.CondMoving)
			if st.GetMove() != nil || st.GetNodeRef() != "n1" || c.GetStatus() != api.StatusFalse || c.GetReason() != test.reason {
				t.Errorf("the project is %v, want the reason %s", st, test.reason)
			}
			// A copy on a deleted node remains as Deleting, so that nobody gets it when the machine joins again.
			aside := api.AsideName("shop", "db", now.GetVolumes()[0].GetNewUid())
			v, known := state.Get[*carav1.Volume](m.db.Cache, aside)
			if known && v.GetStatus().GetState() != api.VolumeDeleting {
				t.Errorf("the copy is %v", v)
			}
			old, _ := state.Get[*carav1.Volume](m.db.Cache, "shop.db")
			if old.GetMetadata().GetUid() != m.uid {
				t.Errorf("the data of before is %v", old)
			}
			_ = m.tryReport(t, now.GetId(), api.MoveVerified) // was on its way; the project may be another one now
			if now := m.shop(t).GetStatus(); now.GetNodeRef() != "n1" || now.GetEpoch() != m.epoch {
				t.Errorf("a late report moved it to %s in epoch %d", now.GetNodeRef(), now.GetEpoch())
			}
		})
	}
}

// TestAnUpdateDuringAMove that leaves the volumes as they are does not end it.
func TestAnUpdateDuringAMove(t *testing.T) {
	m := newMoving(t, "")
	now := m.switches(t)
	p := db(api.ReclaimDelete)
	p.Spec.Services[0].Image = "nginx:2"
	m.put(t, p)
	m.told(t, api.MoveSwitching)
	m.reports(t, now.GetId(), api.MoveVerified)
	m.moved(t, now.GetVolumes()[0])
	if v := m.volume(t, "shop.db"); v.GetSpec().GetReclaim() != api.ReclaimDelete {
		t.Errorf("the moved volume has reclaim %s, want that of the newest manifest", v.GetSpec().GetReclaim())
	}
}

// TestTheOldCopyIsNotHandedOut: when the project and its newer data are gone, the next project of the name does not get the
// data of before the move, until somebody releases it.
func TestTheOldCopyIsNotHandedOut(t *testing.T) {
	for _, release := range []bool{false, true} {
		m := newMoving(t, api.ReclaimDelete)
		now := m.switches(t)
		m.reports(t, now.GetId(), api.MoveVerified)
		aside := api.AsideName("shop", "db", m.uid)
		if _, err := m.project.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop", Force: true}); err != nil {
			t.Fatal(err)
		}
		m.becomes(t, "shop.db", api.VolumeDeleting)
		if got := m.two.doomed(); got.GetUid() != now.GetVolumes()[0].GetNewUid() {
			t.Errorf("n2 is asked to delete %v", got)
		}
		m.inventory(t, m.two)
		m.vanishes(t, "shop.db")
		if v := m.volume(t, aside); v.GetStatus().GetState() != api.VolumeRetained {
			t.Errorf("the old copy is %v", v)
		}
		if release {
			if _, err := m.volumes(t).ReleaseVolume(t.Context(), &carav1.GetRequest{Name: aside}); err != nil {
				t.Fatal(err)
			}
		}
		m.create(t, db(""))
		if uid := m.volume(t, "shop.db").GetMetadata().GetUid(); (uid == m.uid) != release {
			t.Errorf("the next project has the volume %s, the old copy is %s (released: %t)", uid, m.uid, release)
		}
	}
}

// TestTheCopyIsLeftAlone: nobody deletes or releases the copy of a move but the move.
func TestTheCopyIsLeftAlone(t *testing.T) {
	m := newMoving(t, "")
	m.request(t)
	aside := api.AsideName("shop", "db", m.accept(t).GetVolumes()[0].GetNewUid())
	_, err := m.volumes(t).DeleteVolume(t.Context(), &carav1.DeleteRequest{Name: aside})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	_, err = m.volumes(t).ReleaseVolume(t.Context(), &carav1.GetRequest{Name: aside})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	_, err = m.volumes(t).RecreateVolume(t.Context(), &carav1.GetRequest{Name: aside})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
}

// TestAUsedCopyIsKept: a server that was restored from a backup of before the end of a move hears that the new node has used the
// copy since. The copy may have newer data, so it is kept, whether the move is in progress or was cancelled.
func TestAUsedCopyIsKept(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		m := newMoving(t, "")
		m.request(t)
		now := m.accept(t)
		m.copies(t, now)
		uid := now.GetVolumes()[0].GetNewUid()
		if cancelled {
			if _, err := m.project.CancelMove(t.Context(), &carav1.GetRequest{Name: "shop"}); err != nil {
				t.Fatal(err)
			}
			if got := m.two.doomed(); got.GetUid() != uid || !got.GetUnused() {
				t.Errorf("n2 is asked to delete %v", got)
			}
		}
		list := &carav1.VolumeInventory{Volumes: []*carav1.HeldVolume{{Uid: uid, Project: "shop", Name: "db", Owner: "user/admin", Used: true}}}
		if err := m.two.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{Volumes: list}}); err != nil {
			t.Fatal(err)
		}
		m.becomes(t, api.AsideName("shop", "db", uid), api.VolumeRetained)
		if v := m.volume(t, api.AsideName("shop", "db", uid)); v.GetStatus().GetCopy() || !v.GetStatus().GetMade() {
			t.Errorf("the copy is %v", v)
		}
		if u := api.VolumeUse(m.shop(t), "db"); u.GetUid() != m.uid || m.shop(t).GetStatus().GetMove() != nil {
			t.Errorf("shop uses %v, its move is %v", u, m.shop(t).GetStatus().GetMove())
		}
	}
}

// TestACopyIsDeletedAlthoughItsNodeDidNotListIt: a node can send a list from before it made the copy of a move, after the move was
// cancelled. If a later list has the copy, its deletion continues: it does not become data that somebody may have lost.
func TestACopyIsDeletedAlthoughItsNodeDidNotListIt(t *testing.T) {
	m := newMoving(t, "")
	m.request(t)
	uid := m.accept(t).GetVolumes()[0].GetNewUid()
	aside := api.AsideName("shop", "db", uid)
	if _, err := m.project.CancelMove(t.Context(), &carav1.GetRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	if got := m.two.doomed(); got.GetUid() != uid || !got.GetUnused() {
		t.Errorf("n2 is asked to delete %v", got)
	}
	m.inventory(t, m.two) // from before
	m.vanishes(t, aside)
	m.inventory(t, m.two, uid)
	m.becomes(t, aside, api.VolumeDeleting)
	if got := m.two.doomed(); got.GetUid() != uid || !got.GetUnused() {
		t.Errorf("n2 is asked to delete %v again", got)
	}
	m.inventory(t, m.two)
	m.vanishes(t, aside)
}

// TestCancelRacesWithVerified: one of the two transactions wins, and the other is told.
func TestCancelRacesWithVerified(t *testing.T) {
	for range 5 {
		m := newMoving(t, "")
		now := m.switches(t)
		var cancelled, reported error
		var both sync.WaitGroup
		both.Go(func() { _, cancelled = m.project.CancelMove(t.Context(), &carav1.GetRequest{Name: "shop"}) })
		both.Go(func() { reported = m.tryReport(t, now.GetId(), api.MoveVerified) })
		both.Wait()
		if reported != nil {
			t.Errorf("the report was refused: %v", reported)
		}
		if m.shop(t).GetStatus().GetNodeRef() == "n2" {
			testproblem.Want(t, cancelled, codes.FailedPrecondition, api.TitleConflict)
			m.moved(t, now.GetVolumes()[0])
			continue
		}
		if cancelled != nil {
			t.Errorf("nothing won: %v", cancelled)
		}
		m.stayed(t, now, api.ReasonMoveCancelled)
	}
}

// TestProgressIsShownOnlyDuringAMove: a report that was on its way when the move ended does not bring the condition back.
func TestProgressIsShownOnlyDuringAMove(t *testing.T) {
	m := newMoving(t, "")
	progress := func() *carav1.Condition {
		t.Helper()
		p := m.run.GetProject()
		_, err := carav1.NewProjectServiceClient(m.conns[0]).UpdateProjectStatus(t.Context(), &carav1.UpdateProjectStatusRequest{
			Name: "shop", Uid: p.GetMetadata().GetUid(), Epoch: m.epoch, ObservedGeneration: p.GetMetadata().GetGeneration(),
			Conditions: []*carav1.Condition{{Type: api.CondMoving, Status: api.StatusTrue, Reason: api.MoveCopying, Message: "1 of 2 files"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return api.FindCondition(m.shop(t).GetStatus().GetConditions(), api.CondMoving)
	}
	m.request(t)
	if c := progress(); c.GetReason() != api.MoveRequested {
		t.Errorf("before the copy the condition is %v", c)
	}
	m.accept(t)
	if c := progress(); c.GetStatus() != api.StatusTrue || c.GetMessage() != "1 of 2 files" {
		t.Errorf("during the copy the condition is %v", c)
	}
	if _, err := m.project.CancelMove(t.Context(), &carav1.GetRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	if c := progress(); c.GetStatus() != api.StatusFalse || c.GetReason() != api.ReasonMoveCancelled {
		t.Errorf("after the move the condition is %v", c)
	}
}

// TestAMoveWithoutData is one transaction, and copies nothing. A Pending project moves, too.
func TestAMoveWithoutData(t *testing.T) {
	c := newCluster(t, nil)
	p := newPair(t, c)
	projects := carav1.NewProjectServiceClient(c.admin(t))
	move := func(from string) {
		t.Helper()
		out, err := projects.MoveProject(t.Context(), &carav1.MoveProjectRequest{Name: "shop", To: "n2"})
		if err != nil || out.GetStatus().GetMove().GetFrom() != from {
			t.Fatalf("moves %v, %v", out.GetStatus().GetMove(), err)
		}
		if err := c.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleAcceptMove, NodeRef: "n1"}); !api.IsConflict(err) {
			t.Errorf("accepted for another node: %v", err)
		}
		if err := c.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleAcceptMove, NodeRef: "n2"}); err != nil {
			t.Fatal(err)
		}
		st := c.shop(t).GetStatus()
		if st.GetNodeRef() != "n2" || st.GetMove() != nil || st.GetPhase() != api.PhaseScheduled || st.GetHeldBy() != from {
			t.Errorf("the project is %v", st)
		}
	}
	move("n1")
	if u := p.one.unassigned(); u.GetName() != "shop" || u.GetEpoch() != 2 {
		t.Errorf("n1 is told %v", u)
	}
	p.releases(t, 2)
	if got := p.two.assignment().GetProject().GetStatus(); got.GetEpoch() != 2 || got.GetMove() != nil {
		t.Errorf("n2 is assigned %v", got)
	}
	if _, err := projects.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop", Force: true}); err != nil {
		t.Fatal(err)
	}
	c.create(t, web("shop"))
	move("")
}

// TestAMoveSurvivesARestartOfTheServer in each step.
func TestAMoveSurvivesARestartOfTheServer(t *testing.T) {
	m := newMoving(t, "")
	dir := m.dir
	restart := func() {
		t.Helper()
		m.stop()
		m.cluster = openCluster(t, dir, nil)
		m.connect(t)
	}
	m.request(t)
	restart()
	m.told(t, api.MoveRequested)
	m.inventory(t, m.one, m.uid)
	m.inventory(t, m.two)
	now := m.accept(t)
	restart()
	m.told(t, api.MoveCopying)
	if got := m.two.receives(); got.GetUid() != now.GetVolumes()[0].GetNewUid() {
		t.Errorf("n2 is told %v", got)
	}
	m.copies(t, now)
	m.reports(t, now.GetId(), api.MoveCopied)
	m.told(t, api.MoveSwitching)
	restart()
	m.told(t, api.MoveSwitching)
	m.reports(t, now.GetId(), api.MoveVerified) // n2 has not said yet what it has
	if st := m.shop(t).GetStatus(); st.GetMove().GetStep() != api.MoveSwitching || st.GetMove().GetAttempts() != 0 {
		t.Fatalf("the project is %v", st)
	}
	m.inventory(t, m.two, now.GetVolumes()[0].GetNewUid())
	eventually(t, "n2 has sent its inventory", func() bool { return m.objects.Live.Inventories.Of("n2") })
	m.reports(t, now.GetId(), api.MoveVerified)
	m.moved(t, now.GetVolumes()[0])
	restart()
	if st := m.shop(t).GetStatus(); st.GetNodeRef() != "n2" || st.GetMove() != nil {
		t.Errorf("the project is %v", st)
	}
}
