package apiserver

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// snapshot is the id of a snapshot.
const snapshot = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// restoring is a cluster in which shop runs on n1 with the Managed volume db and has backups, and n2 is there, too.
type restoring struct{ *moving }

func newRestoring(t *testing.T, reclaim string) *restoring {
	t.Helper()
	r := &restoring{newMoving(t, reclaim)}
	r.secret(t, "backups", api.SecretBackup, map[string]string{"repository": "/srv/b", "password": "p1"})
	p := db(reclaim)
	p.Spec.Backup = &carav1.Backup{SecretRef: "backups"}
	r.put(t, p)
	r.run = r.assigned(func(a *carav1.Assignment) bool { return a.GetProject().GetSpec().GetBackup() != nil })
	return r
}

func (r *restoring) ask(t *testing.T, req *carav1.RestoreProjectRequest) *carav1.Move {
	t.Helper()
	req.Name = "shop"
	p, err := r.project.RestoreProject(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return p.GetStatus().GetMove()
}

// restores returns the next request to restore a volume.
func (a *fakeAgent) restores() *carav1.RestoreVolume {
	a.t.Helper()
	for {
		if m := a.next().GetRestoreVolume(); m != nil {
			return m
		}
	}
}

// holds sends an inventory with the volume that a restore fills, and the old volume on n1.
func (r *restoring) holds(t *testing.T, a *fakeAgent, uid string, restored *carav1.RestoredVolume) {
	t.Helper()
	list := &carav1.VolumeInventory{Volumes: []*carav1.HeldVolume{{Uid: uid, Project: "shop", Name: "db", Owner: "user/admin", Restored: restored}}}
	if a == r.one && r.uid != "" {
		list.Volumes = append(list.Volumes, &carav1.HeldVolume{Uid: r.uid, Project: "shop", Name: "db", Owner: "user/admin"})
	}
	if err := a.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{Volumes: list}}); err != nil {
		t.Fatal(err)
	}
}

func restored() *carav1.RestoredVolume {
	return &carav1.RestoredVolume{State: api.VolumeRestored, Snapshot: snapshot, Time: timestamppb.New(time.Unix(0, 0)), Bytes: 10, BytesDone: 10}
}

// completes reports that the volume of a restore is complete, and waits until the server has ended the restore.
func (r *restoring) completes(t *testing.T, a *fakeAgent, m *carav1.Move) {
	t.Helper()
	r.holds(t, a, m.GetVolumes()[0].GetNewUid(), restored())
	r.over(t)
}

func (r *restoring) over(t *testing.T) {
	t.Helper()
	eventually(t, "the restore ends", func() bool { return r.shop(t).GetStatus().GetMove() == nil })
}

func (r *restoring) says(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the condition says "+text, func() bool {
		return strings.Contains(api.FindCondition(r.shop(t).GetStatus().GetConditions(), api.CondRestoring).GetMessage(), text)
	})
}

// switched checks that shop is on a node with restored data.
func (r *restoring) switched(t *testing.T, node string, m *carav1.Move) {
	t.Helper()
	st, moved := r.shop(t).GetStatus(), m.GetVolumes()[0]
	c := api.FindCondition(st.GetConditions(), api.CondRestoring)
	if c.GetStatus() != api.StatusFalse || c.GetReason() != api.ReasonRestored {
		t.Errorf("the condition is %v", c)
	}
	if st.GetNodeRef() != node || st.GetEpoch() != r.epoch+1 || st.GetPhase() != api.PhaseScheduled || st.GetHeldBy() != "" {
		t.Errorf("the project is %v", st)
	}
	if u := api.VolumeUse(r.shop(t), "db"); u.GetUid() != moved.GetNewUid() || u.GetNode() != node || !u.GetMade() {
		t.Errorf("the project uses %v", u)
	}
	v := r.volume(t, "shop.db")
	if st := v.GetStatus(); v.GetMetadata().GetUid() != moved.GetNewUid() || st.GetState() != api.VolumeInUse || st.GetNode() != node ||
		st.GetProjectUid() != r.shop(t).GetMetadata().GetUid() || !st.GetMade() || st.GetRestoredFrom().GetSnapshot() != snapshot {
		t.Errorf("the new volume is %v", v)
	}
}

// kept checks the volume that a restore has replaced.
func (r *restoring) kept(t *testing.T, want, to string) {
	t.Helper()
	old := r.volume(t, api.AsideName("shop", "db", r.uid))
	if st := old.GetStatus(); st.GetState() != want || old.GetMetadata().GetUid() != r.uid || st.GetProjectUid() != "" || st.GetMovedTo() != to || st.GetNode() != "n1" ||
		!strings.Contains(st.GetMessage(), "snapshot 01234567 of 1970-01-01T00:00:00Z") && want == api.VolumeRetained {
		t.Errorf("the old volume is %v", old)
	}
	r.listsVolumes(t, "shop.db", api.AsideName("shop", "db", r.uid))
}

// TestRestoreOnTheSameNode: the project runs on its old data until the new data is complete, and its old data is retained
// although its reclaim is Delete.
func TestRestoreOnTheSameNode(t *testing.T) {
	r := newRestoring(t, api.ReclaimDelete)
	m := r.ask(t, &carav1.RestoreProjectRequest{})
	moved := m.GetVolumes()[0]
	if m.GetStep() != api.MoveRestoring || m.GetFrom() != "n1" || m.GetTo() != "n1" || moved.GetUid() != r.uid {
		t.Fatalf("the restore is %v", m)
	}
	want := &carav1.RestoreVolume{
		Uid: moved.GetNewUid(), Project: "shop", Name: "db", Owner: "user/admin", FromProject: "shop", FromVolume: "db",
		Values: map[string][]byte{"repository": []byte("/srv/b"), "password": []byte("p1")},
	}
	if got := r.one.restores(); !proto.Equal(got, want) {
		t.Errorf("n1 is told %v, want %v", got, want)
	}
	_, err := r.project.RestoreProject(t.Context(), &carav1.RestoreProjectRequest{Name: "shop"})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	_, err = r.project.MoveProject(t.Context(), &carav1.MoveProjectRequest{Name: "shop", To: "n2"})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	_, err = r.volumes(t).DeleteVolume(t.Context(), &carav1.DeleteRequest{Name: api.AsideName("shop", "db", moved.GetNewUid())})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)

	r.holds(t, r.one, moved.GetNewUid(), nil)
	r.holds(t, r.one, moved.GetNewUid(), &carav1.RestoredVolume{State: api.VolumeRestoring, Snapshot: snapshot, Bytes: 2 << 20, BytesDone: 1 << 20})
	r.says(t, "volume db has 1 MiB of 2 MiB")
	if st := r.shop(t).GetStatus(); st.GetMove().GetVolumes()[0].GetSnapshot() != snapshot || st.GetEpoch() != r.epoch || api.VolumeUse(r.shop(t), "db").GetUid() != r.uid {
		t.Fatalf("the project is %v", st)
	}
	r.completes(t, r.one, m)
	r.switched(t, "n1", m)
	r.kept(t, api.VolumeRetained, "n1")
	a := r.assigned(func(a *carav1.Assignment) bool { return a.GetProject().GetStatus().GetEpoch() == r.epoch+1 })
	if u := api.VolumeUse(a.GetProject(), "db"); u.GetUid() != moved.GetNewUid() || !u.GetMade() || a.GetProject().GetStatus().GetMove() != nil {
		t.Errorf("n1 is assigned %v", a.GetProject().GetStatus())
	}
	if st := r.shop(t).GetStatus(); st.GetMovedFrom() != "" {
		t.Errorf("moved from %q", st.GetMovedFrom())
	}
	if err := r.one.report(a, api.PhaseRunning); err != nil {
		t.Fatal(err)
	}
	// The data that was replaced stays when the project ends with reclaim Delete, and the next project does not get it.
	r.ends(t)
	if got := r.one.doomed(); got.GetUid() != moved.GetNewUid() {
		t.Errorf("n1 is asked to delete %v", got)
	}
	r.has(t, r.uid)
	r.vanishes(t, "shop.db")
	r.create(t, db(""))
	if u := api.VolumeUse(r.shop(t), "db"); u.GetUid() == r.uid || u.GetMade() {
		t.Errorf("the next project uses %v", u)
	}
}

// TestRestoreOnAnotherNode: the values of the Secret go to the node that restores.
func TestRestoreOnAnotherNode(t *testing.T) {
	r := newRestoring(t, "")
	r.lose(t, "n1")
	m := r.ask(t, &carav1.RestoreProjectRequest{})
	if m.GetStep() != api.MoveRequested || m.GetTo() != "" || len(m.GetVolumes()) > 0 {
		t.Fatalf("the restore is %v", m)
	}
	if err := r.schedule(t, &carav1.ScheduleProjectRequest{Action: api.ScheduleAcceptMove, NodeRef: "n2"}); err != nil {
		t.Fatal(err)
	}
	m = r.shop(t).GetStatus().GetMove()
	if got := r.two.restores(); m.GetTo() != "n2" || got.GetUid() != m.GetVolumes()[0].GetNewUid() || string(got.GetValues()["password"]) != "p1" || got.GetProblem() != "" {
		t.Errorf("n2 is told %v for %v", got, m)
	}
	r.secret(t, "backups", api.SecretBackup, map[string]string{"repository": "/srv/b", "password": "p2"})
	if got := r.two.restores(); string(got.GetValues()["password"]) != "p2" {
		t.Error("n2 is not told the new password")
	}
	r.completes(t, r.two, m)
	r.switched(t, "n2", m)
	r.kept(t, api.VolumeRetained, "n2")
	if a := r.two.assignment(); api.VolumeUse(a.GetProject(), "db").GetUid() != m.GetVolumes()[0].GetNewUid() {
		t.Errorf("n2 is assigned %v", a)
	}
	for len(r.one.got) > 0 {
		if got := (<-r.one.got).GetRestoreVolume(); got != nil {
			t.Errorf("n1 is told to restore %s", got.GetUid())
		}
	}
}

// continues checks that shop has its old data, and that the new volume is being deleted.
func (r *restoring) continues(t *testing.T, m *carav1.Move, reason, text string) {
	t.Helper()
	st := r.shop(t).GetStatus()
	c := api.FindCondition(st.GetConditions(), api.CondRestoring)
	if st.GetMove() != nil || st.GetEpoch() != r.epoch || c.GetStatus() != api.StatusFalse || c.GetReason() != reason || !strings.Contains(c.GetMessage(), text) {
		t.Errorf("shop is in epoch %d with the move %v and the condition %v, want the reason %s and %q", st.GetEpoch(), st.GetMove(), c, reason, text)
	}
	if u := api.VolumeUse(r.shop(t), "db"); u.GetUid() != r.uid || !u.GetMade() {
		t.Errorf("shop uses %v", u)
	}
	for _, moved := range m.GetVolumes() {
		if got := r.one.doomed(); got.GetUid() != moved.GetNewUid() {
			t.Errorf("n1 is asked to delete %v", got)
		}
		r.has(t, r.uid)
		r.vanishes(t, api.AsideName("shop", "db", moved.GetNewUid()))
	}
	r.listsVolumes(t, "shop.db")
}

// TestARestoreThatEndsChangesNothing: the project continues with its old data, and the new volume is deleted.
func TestARestoreThatEndsChangesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		end          func(t *testing.T, r *restoring, m *carav1.Move)
		reason, text string
	}{
		"failed": {func(t *testing.T, r *restoring, m *carav1.Move) {
			t.Helper()
			r.holds(t, r.one, m.GetVolumes()[0].GetNewUid(), &carav1.RestoredVolume{State: api.VolumeRestoreFailed, Reason: api.ReasonWrongPassword, Message: "wrong password"})
		}, api.ReasonRestoreFailed, "node n1 cannot restore volume db: wrong password; the project continues on node n1"},
		"cancelled": {func(t *testing.T, r *restoring, _ *carav1.Move) {
			t.Helper()
			if _, err := r.project.CancelMove(t.Context(), &carav1.GetRequest{Name: "shop"}); err != nil {
				t.Fatal(err)
			}
		}, api.ReasonRestoreCancelled, "the restore on node n1 ended: cancelled by user/admin"},
		"the new volume is lost": {func(t *testing.T, r *restoring, m *carav1.Move) {
			t.Helper()
			r.holds(t, r.one, m.GetVolumes()[0].GetNewUid(), nil)
			eventually(t, "the volume is made", func() bool {
				v, _ := state.Get[*carav1.Volume](r.db.Cache, api.AsideName("shop", "db", m.GetVolumes()[0].GetNewUid()))
				return v.GetStatus().GetMade()
			})
			r.has(t, r.uid)
		}, api.ReasonRestoreFailed, "the copy of volume db is no longer on node n1"},
		"an update without backups": {func(t *testing.T, r *restoring, _ *carav1.Move) {
			t.Helper()
			r.put(t, db(""))
		}, api.ReasonRestoreCancelled, "spec.backup was removed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRestoring(t, "")
			m := r.ask(t, &carav1.RestoreProjectRequest{Snapshot: snapshot[:8]})
			if got := r.one.restores(); got.GetSnapshot() != snapshot[:8] {
				t.Errorf("n1 is told %v", got)
			}
			test.end(t, r, m)
			r.over(t)
			r.continues(t, m, test.reason, test.text)
			r.holds(t, r.one, "another", restored()) // says nothing about this project
			_, err := r.project.CancelMove(t.Context(), &carav1.GetRequest{Name: "shop"})
			testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
		})
	}
}

// TestARestoreIsRefused before anything is written.
func TestARestoreIsRefused(t *testing.T) {
	r := newRestoring(t, "")
	refused := func(req *carav1.RestoreProjectRequest, code codes.Code, text string) {
		t.Helper()
		req.Name = "shop"
		_, err := r.project.RestoreProject(t.Context(), req)
		if api.Code(err) != code || !strings.Contains(api.ProblemOf(err).GetDetail(), text) {
			t.Errorf("%v, want %s and %q", err, code, text)
		}
		if m := r.shop(t).GetStatus().GetMove(); m != nil {
			t.Errorf("there is the move %v", m)
		}
	}
	refused(&carav1.RestoreProjectRequest{Node: "n9"}, codes.NotFound, "n9")
	r.lose(t, "n2")
	refused(&carav1.RestoreProjectRequest{Node: "n2"}, codes.FailedPrecondition, "NotReady")
	refused(&carav1.RestoreProjectRequest{Volumes: []string{"other"}}, codes.FailedPrecondition, `no Managed volume "other"`)
	if _, err := carav1.NewSecretServiceClient(r.admin(t)).DeleteSecret(t.Context(), &carav1.DeleteRequest{Name: "backups"}); err != nil {
		t.Fatal(err)
	}
	refused(&carav1.RestoreProjectRequest{}, codes.FailedPrecondition, "the Secret backups does not exist")
	r.listsVolumes(t, "shop.db")
}

// TestARestoreHoldsTheNamePrefix: the other project's name must have the prefix of the caller's token, too.
func TestARestoreHoldsTheNamePrefix(t *testing.T) {
	r := newRestoring(t, "")
	out, err := carav1.NewTokenServiceClient(r.admin(t)).CreateToken(t.Context(), &carav1.CreateTokenRequest{
		Token: &carav1.Token{Metadata: &carav1.ObjectMeta{Name: "ci"}, Role: "deployer", NamePrefix: "sho"},
	})
	if err != nil {
		t.Fatal(err)
	}
	projects := carav1.NewProjectServiceClient(r.dial(t, out.GetSecret()))
	_, err = projects.RestoreProject(t.Context(), &carav1.RestoreProjectRequest{Name: "shop", As: "other"})
	testproblem.Want(t, err, codes.PermissionDenied, api.TitleForbidden)
	if _, err := projects.RestoreProject(t.Context(), &carav1.RestoreProjectRequest{Name: "shop", As: "shop-old"}); err != nil {
		t.Error(err)
	}
}

// TestRestoreForAnotherProject leaves the project alone. The next project of the other name gets the data.
func TestRestoreForAnotherProject(t *testing.T) {
	r := newRestoring(t, api.ReclaimDelete)
	m := r.ask(t, &carav1.RestoreProjectRequest{As: "old"})
	uid := m.GetVolumes()[0].GetNewUid()
	if got := r.one.restores(); got.GetProject() != "old" || got.GetFromProject() != "shop" || got.GetUid() != uid {
		t.Errorf("n1 is told %v", got)
	}
	list := &carav1.VolumeInventory{Volumes: []*carav1.HeldVolume{
		{Uid: r.uid, Project: "shop", Name: "db"}, {Uid: uid, Project: "old", Name: "db", Restored: restored()},
	}}
	if err := r.one.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{Volumes: list}}); err != nil {
		t.Fatal(err)
	}
	r.over(t)
	if st := r.shop(t).GetStatus(); st.GetEpoch() != r.epoch || st.GetPhase() != api.PhaseRunning || api.VolumeUse(r.shop(t), "db").GetUid() != r.uid {
		t.Errorf("the project is %v", st)
	}
	v := r.volume(t, "old.db")
	if st := v.GetStatus(); v.GetMetadata().GetUid() != uid || st.GetState() != api.VolumeRetained || !st.GetMade() || st.GetOwner() != "user/admin" ||
		st.GetMovedTo() != "" || v.GetSpec().GetReclaim() != api.ReclaimRetain || !strings.Contains(st.GetMessage(), "of project shop") {
		t.Errorf("the volume is %v", v)
	}
	r.listsVolumes(t, "shop.db", "old.db")
	_, err := r.project.RestoreProject(t.Context(), &carav1.RestoreProjectRequest{Name: "shop", As: "old"})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	p := db("")
	p.Metadata.Name = "old"
	r.create(t, p)
	old, _ := state.Get[*carav1.Project](r.db.Cache, "old")
	if u := api.VolumeUse(old, "db"); u.GetUid() != uid || !u.GetMade() {
		t.Errorf("the next project uses %v", u)
	}
}
