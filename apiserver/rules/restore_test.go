package rules

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// restorable is a project on n1 with backups of the volumes db and media there, and a node n2 that can restore them.
func restorable() (p *carav1.Project, to *carav1.Node) {
	managed := func(name string) *carav1.ProjectVolume {
		return &carav1.ProjectVolume{Name: name, Type: api.VolumeManaged}
	}
	p = &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "shop", Uid: "p"},
		Spec: &carav1.ProjectSpec{
			Backup:  &carav1.Backup{SecretRef: "backups"},
			Volumes: []*carav1.ProjectVolume{managed("db"), {Name: "cache"}, managed("media")},
		},
		Status: &carav1.ProjectStatus{
			Phase: api.PhaseRunning, NodeRef: "n1",
			Volumes: []*carav1.VolumeUse{{Name: "db", Uid: "u1", Node: "n1", Made: true}, {Name: "media", Uid: "u2", Node: "n1", Made: true}},
		},
	}
	return p, &carav1.Node{
		Metadata: &carav1.ObjectMeta{Name: "n2"}, Spec: &carav1.NodeSpec{},
		Status: &carav1.NodeStatus{State: api.NodeReady, Info: &carav1.NodeInfo{Tools: map[string]string{api.ToolRestic: "0.18.0"}}},
	}
}

func updateFailed(p *carav1.Project) {
	p.Status.Conditions = []*carav1.Condition{{Type: api.CondReady, Status: api.StatusFalse, Reason: api.ReasonUpdateFailed}}
}

func TestRestoreOf(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	both := []string{"db", "media"}
	nothing := func(*carav1.Project) {}
	for _, test := range []struct {
		name   string
		req    *carav1.RestoreProjectRequest
		change func(p *carav1.Project)
		want   *carav1.Restore
		err    string
	}{
		{"all volumes", &carav1.RestoreProjectRequest{}, nothing, &carav1.Restore{Volumes: both}, ""},
		{"latest", &carav1.RestoreProjectRequest{Snapshot: "latest"}, nothing, &carav1.Restore{Volumes: both}, ""},
		{"in the order of the spec", &carav1.RestoreProjectRequest{Volumes: []string{"media", "db"}}, nothing, &carav1.Restore{Volumes: both}, ""},
		{"one volume", &carav1.RestoreProjectRequest{Volumes: []string{"media"}}, nothing, &carav1.Restore{Volumes: both[1:]}, ""},
		{"a snapshot of one volume", &carav1.RestoreProjectRequest{Volumes: both[:1], Snapshot: id}, nothing, &carav1.Restore{Volumes: both[:1], Snapshot: id}, ""},
		{"a short id", &carav1.RestoreProjectRequest{Volumes: both[:1], Snapshot: id[:8]}, nothing, &carav1.Restore{Volumes: both[:1], Snapshot: id[:8]}, ""},
		{"a snapshot of the only volume", &carav1.RestoreProjectRequest{Snapshot: id[:8]}, func(p *carav1.Project) { p.Spec.Volumes = p.Spec.Volumes[:2] }, &carav1.Restore{Volumes: both[:1], Snapshot: id[:8]}, ""},
		{"for another project", &carav1.RestoreProjectRequest{As: "old"}, nothing, &carav1.Restore{Volumes: both, As: "old"}, ""},
		{"for another project after a failed update", &carav1.RestoreProjectRequest{As: "old"}, updateFailed, &carav1.Restore{Volumes: both, As: "old"}, ""},
		{"a failed project", &carav1.RestoreProjectRequest{}, func(p *carav1.Project) { p.Status.Phase = api.PhaseFailed }, &carav1.Restore{Volumes: both}, ""},
		{"a pending project", &carav1.RestoreProjectRequest{}, func(p *carav1.Project) { p.Status = &carav1.ProjectStatus{Phase: api.PhasePending} }, &carav1.Restore{Volumes: both}, ""},
		{"a snapshot of two volumes", &carav1.RestoreProjectRequest{Snapshot: id}, nothing, nil, "--volume"},
		{"a short snapshot", &carav1.RestoreProjectRequest{Snapshot: id[:7], Volumes: both[:1]}, nothing, nil, "restic snapshots"},
		{"a long snapshot", &carav1.RestoreProjectRequest{Snapshot: id + "0", Volumes: both[:1]}, nothing, nil, "restic snapshots"},
		{"an option instead of a snapshot", &carav1.RestoreProjectRequest{Snapshot: "--no-lock", Volumes: both[:1]}, nothing, nil, "restic snapshots"},
		{"a dash", &carav1.RestoreProjectRequest{Snapshot: "-abcdef01", Volumes: both[:1]}, nothing, nil, "restic snapshots"},
		{"capital letters", &carav1.RestoreProjectRequest{Snapshot: "ABCDEF01", Volumes: both[:1]}, nothing, nil, "restic snapshots"},
		{"an unknown volume", &carav1.RestoreProjectRequest{Volumes: []string{"db", "other"}}, nothing, nil, "are db, media"},
		{"an Ephemeral volume", &carav1.RestoreProjectRequest{Volumes: []string{"cache"}}, nothing, nil, `no Managed volume "cache"`},
		{"no Managed volumes", &carav1.RestoreProjectRequest{}, func(p *carav1.Project) { p.Spec.Volumes = nil }, nil, "nothing to restore"},
		{"no backups", &carav1.RestoreProjectRequest{}, func(p *carav1.Project) { p.Spec.Backup = nil }, nil, "no spec.backup"},
		{"terminating", &carav1.RestoreProjectRequest{}, func(p *carav1.Project) { p.Status.Phase = api.PhaseTerminating }, nil, "is being deleted"},
		{"moving", &carav1.RestoreProjectRequest{}, func(p *carav1.Project) { p.Status.Move = &carav1.Move{To: "n2"} }, nil, "caractrl move shop --cancel"},
		{"being restored", &carav1.RestoreProjectRequest{}, func(p *carav1.Project) { p.Status.Move = &carav1.Move{Restore: &carav1.Restore{}} }, nil, "caractrl restore shop --cancel"},
		{"a failed update", &carav1.RestoreProjectRequest{}, updateFailed, nil, "caractrl rollback shop"},
		{"for itself", &carav1.RestoreProjectRequest{As: "shop"}, nothing, nil, "is the project itself"},
		{"for no name", &carav1.RestoreProjectRequest{As: "a.b"}, nothing, nil, "is no name of a project"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, _ := restorable()
			test.change(p)
			got, err := RestoreOf(p, test.req)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("%v, want %q", err, test.err)
			}
			if !proto.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestCannotRestore(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(p *carav1.Project, r *carav1.Restore, to *carav1.Node)
		want   string
	}{
		{"all volumes on another node", func(*carav1.Project, *carav1.Restore, *carav1.Node) {}, ""},
		{"on a lost node", func(_ *carav1.Project, _ *carav1.Restore, to *carav1.Node) { to.Status.State = api.NodeNotReady }, "node n2 is NotReady"},
		{"on a cordoned node", func(_ *carav1.Project, _ *carav1.Restore, to *carav1.Node) { to.Spec.Unschedulable = true }, "caractrl uncordon n2"},
		{"on a draining node", func(_ *carav1.Project, _ *carav1.Restore, to *carav1.Node) { to.Spec.Draining = true }, "caractrl uncordon n2"},
		{"on its own cordoned node", func(p *carav1.Project, _ *carav1.Restore, to *carav1.Node) {
			p.Status.NodeRef, to.Spec.Unschedulable = "n2", true
		}, ""},
		{"without restic", func(_ *carav1.Project, _ *carav1.Restore, to *carav1.Node) { to.Status.Info.Tools = nil }, "apt-get install restic"},
		{"one volume on another node", func(_ *carav1.Project, r *carav1.Restore, _ *carav1.Node) { r.Volumes = []string{"db"} }, "the data of volume media is on node n1"},
		{"one volume on another node for another project", func(_ *carav1.Project, r *carav1.Restore, _ *carav1.Node) {
			r.Volumes, r.As = []string{"db"}, "old"
		}, ""},
		{"one volume on the own node", func(p *carav1.Project, r *carav1.Restore, to *carav1.Node) {
			r.Volumes, to.Metadata.Name = []string{"db"}, "n1"
		}, ""},
		{"the other volume has no data", func(p *carav1.Project, r *carav1.Restore, _ *carav1.Node) {
			r.Volumes, p.Status.Volumes[1].Made = []string{"db"}, false
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, to := restorable()
			r := &carav1.Restore{Volumes: []string{"db", "media"}}
			test.change(p, r, to)
			err := cannotRestore(p, r, to)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestNeedsNoRoom(t *testing.T) {
	for _, test := range []struct {
		name, phase, to, as string
		want                bool
	}{
		{"running there", api.PhaseRunning, "n1", "", true},
		{"starting there", api.PhaseScheduled, "n1", "", true},
		{"failed there", api.PhaseFailed, "n1", "", false},
		{"on another node", api.PhaseRunning, "n2", "", false},
		{"for another project", api.PhaseFailed, "n2", "old", true},
		{"for another project, on no node", api.PhasePending, "", "old", false},
		{"on no node", api.PhasePending, "", "", false},
	} {
		p, _ := restorable()
		p.Status.Phase = test.phase
		if got := NeedsNoRoom(p, &carav1.Move{To: test.to, Restore: &carav1.Restore{As: test.as}}); got != test.want {
			t.Errorf("%s: %t, want %t", test.name, got, test.want)
		}
	}
}

func TestAfterInventory(t *testing.T) {
	m := &carav1.Move{To: "n2", Volumes: []*carav1.MovedVolume{{Name: "db", NewUid: "a"}, {Name: "media", NewUid: "b"}}}
	done := &carav1.RestoredVolume{State: api.VolumeRestored, Snapshot: "1"}
	half := &carav1.RestoredVolume{State: api.VolumeRestoring, Bytes: 2 << 30, BytesDone: 1 << 30}
	for _, test := range []struct {
		name string
		a, b *carav1.RestoredVolume
		want restoreEffect
		why  string
	}{
		{"nothing is known", nil, nil, restoreContinues, "node n2 restores 2 of 2 volumes: volume db waits; volume media waits"},
		{"one begins", &carav1.RestoredVolume{State: api.VolumeRestoring}, nil, restoreContinues, "node n2 restores 2 of 2 volumes: volume db begins; volume media waits"},
		{"half of one", half, nil, restoreContinues, "node n2 restores 2 of 2 volumes: volume db has 1024 MiB of 2048 MiB; volume media waits"},
		{"one is complete", done, half, restoreContinues, "node n2 restores 1 of 2 volumes: volume db is complete; volume media has 1024 MiB of 2048 MiB"},
		{"it waits for the repository", &carav1.RestoredVolume{State: api.VolumeRestoring, Message: "locked"}, done, restoreContinues, "node n2 restores 1 of 2 volumes: volume db begins (locked); volume media is complete"},
		{"one fails", done, &carav1.RestoredVolume{State: api.VolumeRestoreFailed, Reason: "WrongPassword", Message: "wrong password"}, restoreFails, "node n2 cannot restore volume media: wrong password"},
		{"one fails without a message", &carav1.RestoredVolume{State: api.VolumeRestoreFailed, Reason: "WrongPassword"}, done, restoreFails, "node n2 cannot restore volume db: WrongPassword"},
		{"an unknown state is not complete", done, &carav1.RestoredVolume{State: "Other"}, restoreContinues, "node n2 restores 1 of 2 volumes: volume db is complete; volume media waits"},
		{"all are complete", done, done, restoreCompletes, ""},
	} {
		held := map[string]*carav1.HeldVolume{"a": {Uid: "a", Restored: test.a}, "b": {Uid: "b", Restored: test.b}, "c": {Uid: "c", Restored: done}}
		if got, why := afterInventory(m, held); got != test.want || why != test.why {
			t.Errorf("%s: %d %q, want %d %q", test.name, got, why, test.want, test.why)
		}
	}
	if got, _ := afterInventory(m, map[string]*carav1.HeldVolume{"a": {Restored: done}}); got != restoreContinues {
		t.Errorf("a volume that the node does not have: %d", got)
	}
}

func TestCannotSwitch(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(p *carav1.Project, r *carav1.Restore, to *carav1.Node)
		want   string
	}{
		{"all volumes", func(*carav1.Project, *carav1.Restore, *carav1.Node) {}, ""},
		{"failed meanwhile", func(p *carav1.Project, _ *carav1.Restore, _ *carav1.Node) { p.Status.Phase = api.PhaseFailed }, ""},
		{"the update failed meanwhile", func(p *carav1.Project, _ *carav1.Restore, _ *carav1.Node) { updateFailed(p) }, "the last update of the project failed, and it would start with that update"},
		{"the node drains", func(_ *carav1.Project, _ *carav1.Restore, to *carav1.Node) { to.Spec.Draining = true }, "node n2 is draining"},
		{"its own node drains", func(p *carav1.Project, _ *carav1.Restore, to *carav1.Node) {
			p.Status.NodeRef, to.Spec.Draining = "n2", true
		}, ""},
		{"no backups any more", func(p *carav1.Project, _ *carav1.Restore, _ *carav1.Node) { p.Spec.Backup = nil }, "spec.backup was removed from the project"},
		{"a volume less", func(p *carav1.Project, _ *carav1.Restore, _ *carav1.Node) { p.Status.Volumes = p.Status.Volumes[:1] }, "the project does not use volume media any more"},
		{"a volume more, without data", func(p *carav1.Project, _ *carav1.Restore, _ *carav1.Node) {
			p.Status.Volumes = append(p.Status.Volumes, &carav1.VolumeUse{Name: "new", Node: "n1"})
		}, ""},
		{"a volume more, with data elsewhere", func(p *carav1.Project, _ *carav1.Restore, _ *carav1.Node) {
			p.Status.Volumes = append(p.Status.Volumes, &carav1.VolumeUse{Name: "new", Node: "n1", Made: true})
		}, "the data of volume new is on node n1 and is not restored"},
		{"a volume more, with data there", func(p *carav1.Project, _ *carav1.Restore, _ *carav1.Node) {
			p.Status.Volumes = append(p.Status.Volumes, &carav1.VolumeUse{Name: "new", Node: "n2", Made: true})
		}, ""},
	} {
		p, to := restorable()
		r := &carav1.Restore{Volumes: []string{"db", "media"}}
		test.change(p, r, to)
		other := &carav1.Restore{Volumes: r.Volumes, As: "other"}
		if got := restoresOther(p, &carav1.Move{To: "n2", Restore: other}); p.Spec.Backup != nil && got != "" {
			t.Errorf("%s: the restore for another project cannot continue: %s", test.name, got)
		}
		if got := cannotSwitch(p, &carav1.Move{To: "n2", Restore: r}, to); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestWithBackup(t *testing.T) {
	at := timestamppb.New(time.Unix(1000, 0))
	p, _ := restorable()
	p.Status.Backup = &carav1.BackupStatus{LastSuccess: at, Snapshots: []*carav1.BackupSnapshot{{Volume: "db", Uid: "u1", Id: "s1"}, {Volume: "media", Uid: "u2", Id: "s2"}}}
	for _, test := range []struct {
		name, uid, volume, project string
		stored                     string
		want                       string
	}{
		{"in use", "u1", "db", "p", "", "s1"},
		{"in use, of the data before a restore", "u9", "db", "p", "", "s1"},
		{"retained, of its data", "u2", "media", "", "", "s2"},
		{"retained, of other data", "u9", "media", "", "", ""},
		{"stored when its project ended", "u9", "media", "", "s0", "s0"},
		{"of a project of the same name", "u9", "db", "another", "", ""},
		{"not in the backup", "u9", "new", "p", "", ""},
	} {
		v := &carav1.Volume{
			Metadata: &carav1.ObjectMeta{Uid: test.uid}, Spec: &carav1.VolumeSpec{Project: "shop", Name: test.volume},
			Status: &carav1.VolumeStatus{ProjectUid: test.project, Snapshot: test.stored},
		}
		got := WithBackup(v, p).GetStatus()
		if got.GetSnapshot() != test.want || (test.want != "" && test.stored == "") != (got.GetLastBackup() != nil) {
			t.Errorf("%s: %q of %v, want %q", test.name, got.GetSnapshot(), got.GetLastBackup(), test.want)
		}
		if none := WithBackup(v, nil).GetStatus(); none.GetSnapshot() != test.stored {
			t.Errorf("%s, without a project: %q", test.name, none.GetSnapshot())
		}
	}
}
