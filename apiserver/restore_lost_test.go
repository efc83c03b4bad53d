package apiserver

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// TestRestoreOfLostData starts a project that has failed because its data is lost.
func TestRestoreOfLostData(t *testing.T) {
	r := newRestoring(t, "")
	r.has(t)
	r.becomes(t, "shop.db", api.VolumeLost)
	if err := r.one.report(r.run, api.PhaseFailed); err != nil {
		t.Fatal(err)
	}
	if m := r.ask(t, &carav1.RestoreProjectRequest{}); m.GetStep() != api.MoveRequested || m.GetTo() != "n1" {
		t.Fatalf("the restore is %v", m)
	}
	if err := r.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleAcceptMove, NodeRef: "n1"}); err != nil {
		t.Fatal(err)
	}
	lost := r.uid
	r.uid = "" // n1 does not have it
	m := r.shop(t).GetStatus().GetMove()
	r.completes(t, r.one, m)
	r.switched(t, "n1", m)
	r.uid = lost
	r.kept(t, api.VolumeLost, "n1")
	// The engine finds its disk again. The data is kept, and the project goes on with what was restored.
	r.holds(t, r.one, m.GetVolumes()[0].GetNewUid(), restored())
	r.becomes(t, api.AsideName("shop", "db", lost), api.VolumeRetained)
	r.switched(t, "n1", m)
}

// TestARestoreContinuesWithoutTheOldData: the data is lost during the restore, and the project fails and is retried.
func TestARestoreContinuesWithoutTheOldData(t *testing.T) {
	r := newRestoring(t, "")
	m := r.ask(t, &carav1.RestoreProjectRequest{})
	lost := r.uid
	r.uid = "" // n1 does not have it any more
	r.holds(t, r.one, m.GetVolumes()[0].GetNewUid(), &carav1.RestoredVolume{State: api.VolumeRestoring, Snapshot: snapshot})
	r.becomes(t, "shop.db", api.VolumeLost)
	if err := r.one.report(r.run, api.PhaseFailed); err != nil {
		t.Fatal(err)
	}
	if _, err := r.project.RetryProject(t.Context(), &carav1.RetryProjectRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	if st := r.shop(t).GetStatus(); st.GetPhase() != api.PhasePending || st.GetMove().GetId() != m.GetId() {
		t.Fatalf("the project is %v", st)
	}
	r.completes(t, r.one, m)
	r.switched(t, "n1", m)
	r.uid = lost
	r.kept(t, api.VolumeLost, "n1")
}

// TestRestoreAfterItsNodeIsDeleted: the project waits for data that no node has.
func TestRestoreAfterItsNodeIsDeleted(t *testing.T) {
	r := newRestoring(t, "")
	r.lose(t, "n1")
	if err := r.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleEvict}); err != nil {
		t.Fatal(err)
	}
	if _, err := carav1.NewNodeServiceClient(r.admin(t)).DeleteNode(t.Context(), &carav1.DeleteRequest{Name: "n1"}); err != nil {
		t.Fatal(err)
	}
	accept := func() *carav1.Move {
		t.Helper()
		r.ask(t, &carav1.RestoreProjectRequest{})
		if err := r.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleAcceptMove, NodeRef: "n2"}); err != nil {
			t.Fatal(err)
		}
		return r.shop(t).GetStatus().GetMove()
	}
	m := accept()
	r.completes(t, r.two, m)
	r.switched(t, "n2", m)
	if v := r.volume(t, api.AsideName("shop", "db", r.uid)); v.GetStatus().GetState() != api.VolumeLost || v.GetStatus().GetNode() != "n1" {
		t.Errorf("the old volume is %v", v)
	}
}

// TestTheSchedulerReplacesAStrandedRestore: a restore on a node that is lost meanwhile cannot go on. One on a node that is
// there goes on.
func TestTheSchedulerReplacesAStrandedRestore(t *testing.T) {
	r := newRestoring(t, "")
	conn, err := r.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	scheduler := carav1.NewProjectServiceClient(conn)
	first := r.ask(t, &carav1.RestoreProjectRequest{})
	_, err = scheduler.RestoreProject(t.Context(), &carav1.RestoreProjectRequest{Name: "shop", Node: "n2"})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	r.lose(t, "n1")
	p, err := scheduler.RestoreProject(t.Context(), &carav1.RestoreProjectRequest{Name: "shop", Node: "n2"})
	if err != nil {
		t.Fatal(err)
	}
	if m := p.GetStatus().GetMove(); m.GetId() == first.GetId() || m.GetTo() != "n2" || m.GetStep() != api.MoveRequested {
		t.Errorf("the restore is %v", m)
	}
	if v := r.volume(t, api.AsideName("shop", "db", first.GetVolumes()[0].GetNewUid())); v.GetStatus().GetState() != api.VolumeDeleting {
		t.Errorf("the volume of the first restore is %v", v)
	}
}

// TestDeletionEndsARestore also of a project that has no node.
func TestDeletionEndsARestore(t *testing.T) {
	r := newRestoring(t, "")
	if err := r.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleEvict}); err != nil {
		t.Fatal(err)
	}
	r.ask(t, &carav1.RestoreProjectRequest{Node: "n2"})
	if err := r.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleAcceptMove, NodeRef: "n2"}); err != nil {
		t.Fatal(err)
	}
	m := r.shop(t).GetStatus().GetMove()
	r.two.restores()
	if _, err := r.project.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	if got := r.two.doomed(); got.GetUid() != m.GetVolumes()[0].GetNewUid() {
		t.Errorf("n2 is asked to delete %v", got)
	}
	if st := r.volume(t, "shop.db").GetStatus(); st.GetState() != api.VolumeRetained || st.GetNode() != "n1" {
		t.Errorf("the volume is %v", st)
	}
}

// TestARestoreSurvivesARestartOfTheServer: the node is told again, and then the snapshot that it has chosen.
func TestARestoreSurvivesARestartOfTheServer(t *testing.T) {
	r := newRestoring(t, "")
	m := r.ask(t, &carav1.RestoreProjectRequest{})
	uid := m.GetVolumes()[0].GetNewUid()
	r.one.restores()
	r.holds(t, r.one, uid, &carav1.RestoredVolume{State: api.VolumeRestoring, Snapshot: snapshot})
	r.says(t, "volume db begins")
	dir := r.dir
	r.stop()
	r.cluster = openCluster(t, dir, nil)
	r.connect(t)
	if got := r.one.restores(); got.GetUid() != uid || got.GetSnapshot() != snapshot {
		t.Errorf("n1 is told %v", got)
	}
	r.completes(t, r.one, m)
	r.switched(t, "n1", m)
	r.kept(t, api.VolumeRetained, "n1")
}

// TestTheSchedulerCancelsItsOwnRestore when it is not needed any more, and no other.
func TestTheSchedulerCancelsItsOwnRestore(t *testing.T) {
	r := newRestoring(t, "")
	r.ask(t, &carav1.RestoreProjectRequest{})
	testproblem.Want(t, r.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleRefuseMove}), codes.Aborted, api.TitleConflict)
	if _, err := r.project.CancelMove(t.Context(), &carav1.GetRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	conn, err := r.Client("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	p, err := carav1.NewProjectServiceClient(conn).RestoreProject(t.Context(), &carav1.RestoreProjectRequest{Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if m := p.GetStatus().GetMove(); m.GetStep() != api.MoveRestoring || m.GetActor() != "system/scheduler" {
		t.Fatalf("the restore is %v", m)
	}
	if err := r.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleRefuseMove, Message: "node n1 is back"}); err != nil {
		t.Fatal(err)
	}
	c := api.FindCondition(r.shop(t).GetStatus().GetConditions(), api.CondRestoring)
	if c.GetReason() != api.ReasonRestoreCancelled || !strings.Contains(c.GetMessage(), "node n1 is back") {
		t.Errorf("the condition is %v", c)
	}
}

// TestACancelledRestoreIsDeclined until somebody requests one: the scheduler leaves the project alone meanwhile.
func TestACancelledRestoreIsDeclined(t *testing.T) {
	r := newRestoring(t, "")
	cancelled := func() *carav1.ProjectStatus {
		t.Helper()
		p, err := r.project.CancelMove(t.Context(), &carav1.GetRequest{Name: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		return p.GetStatus()
	}
	r.ask(t, &carav1.RestoreProjectRequest{As: "other"})
	if st := cancelled(); st.GetRestoreDeclined() != nil {
		t.Errorf("a cancelled restore for another project declines that of this one at %v", st.GetRestoreDeclined())
	}
	r.ask(t, &carav1.RestoreProjectRequest{})
	if st := cancelled(); st.GetRestoreDeclined() == nil {
		t.Error("a cancelled restore is not declined")
	}
	r.ask(t, &carav1.RestoreProjectRequest{As: "other"})
	if st := cancelled(); st.GetRestoreDeclined() == nil {
		t.Error("a restore for another project is a request to restore this one")
	}
	r.ask(t, &carav1.RestoreProjectRequest{})
	p, err := r.project.GetProject(t.Context(), &carav1.GetRequest{Name: "shop"})
	if err != nil || p.GetStatus().GetRestoreDeclined() != nil {
		t.Errorf("after a request, the restore is declined at %v (%v)", p.GetStatus().GetRestoreDeclined(), err)
	}
}
