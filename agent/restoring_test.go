package agent_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// toRestore is project p with a backup of volume data, in which rows is 1. By now it is 2.
type toRestore struct {
	*backedUp
	as string // project of the restored volume
}

func newToRestore(t *testing.T) *toRestore {
	t.Helper()
	r := &toRestore{newBackedUp(t), "p"}
	r.ask("t1")
	r.ended(t, "t1", api.BackupSucceeded)
	r.write(t, filepath.Join(r.dir, dataName("p", "data"), "_data", "rows"), "2")
	return r
}

// wanted is the request for the data of p.data as the volume newUID.
func (r *toRestore) wanted() *carav1.RestoreVolume {
	r.mu.Lock()
	defer r.mu.Unlock()
	values := map[string][]byte{}
	for ref, value := range r.secrets["p"] {
		values[strings.TrimPrefix(ref, "s/")] = value
	}
	return &carav1.RestoreVolume{
		Uid: newUID, Project: r.as, Name: "data", Owner: "source/git", FromProject: "p", FromVolume: "data", Values: values,
	}
}

// path is a file of the restored volume.
func (r *toRestore) path(name string) string {
	return filepath.Join(r.dir, api.EngineVolume(r.as, "data", newUID), "_data", name)
}

// result waits until the agent tells a result, which must be in a state.
func (r *toRestore) result(t *testing.T, state string) *carav1.RestoredVolume {
	t.Helper()
	var got *carav1.RestoredVolume
	waitUntil(t, func() bool {
		held, _ := r.holds()
		got = held[newUID].GetRestored()
		return got.GetState() == api.VolumeRestored || got.GetState() == api.VolumeRestoreFailed
	})
	if got.GetState() != state {
		t.Fatalf("the restore is %s: %s: %s", got.GetState(), got.GetReason(), got.GetMessage())
	}
	return got
}

func (r *toRestore) has(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s has %q, %v, want %q", path, got, err, want)
	}
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// runs counts the runs of restic restore.
func (r *toRestore) runs(t *testing.T) int {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(r.shared, "restores"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(log), "\n")
}

// hold makes restores wait before restic runs, until let is called.
func (r *toRestore) hold(t *testing.T) (let func()) {
	t.Helper()
	r.write(t, filepath.Join(r.shared, "restore-gate"), "")
	return func() {
		t.Helper()
		if err := os.Remove(filepath.Join(r.shared, "restore-gate")); err != nil {
			t.Fatal(err)
		}
	}
}

// switchTo gives the project its restored volume, as the server does: with a new epoch.
func (r *toRestore) switchTo(uid string) {
	r.restoreEnds(newUID)
	r.edit("p", func(p *carav1.Project) {
		p.Status.Epoch++
		p.Status.Phase = api.PhaseScheduled
		p.Status.Volumes = []*carav1.VolumeUse{{Name: "data", Uid: uid, Node: "n1", Made: true}}
	})
}

// TestRestoreVolume: the project runs on its data while a new volume is filled from the backup. Then it runs on that volume, and
// the old one is left as it is.
func TestRestoreVolume(t *testing.T) {
	r := newToRestore(t)
	before := r.containers(t)
	let := r.hold(t)
	r.restore(r.wanted())
	waitUntil(t, func() bool { return r.exists("restore-waits") })
	waitUntil(t, func() bool { // what is known is told
		held, _ := r.holds()
		s := held[newUID].GetRestored()
		return s.GetState() == api.VolumeRestoring && len(s.GetSnapshot()) == 64 && s.GetTime() != nil && s.GetBytes() == 1
	})
	let()
	got := r.result(t, api.VolumeRestored)
	if len(got.GetSnapshot()) != 64 || got.GetBytes() != 1 || got.GetBytesDone() != 1 || got.GetTime() == nil || got.GetReason() != "" {
		t.Errorf("restored %v", got)
	}
	r.has(t, r.path("rows"), "1")
	labels := map[string]string{
		api.LabelCluster: "c1", api.LabelNode: "n1", api.LabelVolume: "p.data", api.LabelVolumeUID: newUID, api.LabelOwner: "source/git",
	}
	if diff := cmp.Diff(labels, r.volumes(t)[api.EngineVolume("p", "data", newUID)]); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ids(before), ids(r.containers(t))); diff != "" {
		t.Errorf("the containers have changed (-before +now):\n%s", diff)
	}

	r.switchTo(newUID)
	r.wait(t, "p", phase(api.PhaseRunning))
	for name, c := range r.containers(t) {
		if c.Mounts["/data"].Volume != api.EngineVolume("p", "data", newUID) {
			t.Errorf("%s mounts %v", name, c.Mounts)
		}
	}
	r.has(t, filepath.Join(r.dir, dataName("p", "data"), "_data", "rows"), "2")
	if names := slices.Sorted(maps.Keys(r.volumes(t))); len(names) != 3 || !slices.Contains(names, dataName("p", "data")) {
		t.Errorf("the engine has the volumes %v", names)
	}
	if left, err := filepath.Glob(filepath.Join(r.cfg.DataDir, "restores", "*")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestRestoreNeverChangesAUsedVolume: whatever the server asks for, a volume that a project uses or has used is left alone.
func TestRestoreNeverChangesAUsedVolume(t *testing.T) {
	for name, tt := range map[string]struct {
		as      string // project of the volume
		prepare func(t *testing.T, r *toRestore)
	}{
		"an assignment uses it": {"p", func(t *testing.T, r *toRestore) {
			r.switchTo(newUID)
			r.wait(t, "p", phase(api.PhaseRunning))
		}},
		"a project has used it": {"p", func(t *testing.T, r *toRestore) {
			r.switchTo(newUID)
			r.wait(t, "p", phase(api.PhaseRunning))
			r.switchTo(volumeUID("p", "data"))
			r.wait(t, "p", phase(api.PhaseRunning))
		}},
		"a project that is gone has used it": {"p", func(t *testing.T, r *toRestore) {
			r.switchTo(newUID)
			r.wait(t, "p", phase(api.PhaseRunning))
			r.terminate("p")
			r.wait(t, "p", gone)
		}},
		"a container mounts it": {"q", func(t *testing.T, r *toRestore) {
			r.stop()
			r.cfg.OrphanGrace = 1 << 40
			r.run(t)
			spec := engine.ContainerSpec{
				Name: "cara-q.z", Labels: map[string]string{api.LabelCluster: "c1", api.LabelNode: "n1", api.LabelProject: "q"},
				Service: &carav1.Service{Name: "z", Image: "web", VolumeMounts: []*carav1.VolumeMount{{Name: "data", MountPath: "/data"}}},
				Volumes: map[string]engine.Source{"data": {Volume: api.EngineVolume("q", "data", newUID)}},
			}
			if _, err := r.engine.CreateContainer(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newToRestore(t)
			r.as = tt.as // the worker of p would remove a container that no assignment explains
			r.switchable(t)
			tt.prepare(t, r)
			r.write(t, r.path("rows"), "newer")
			r.restore(r.wanted())
			if got := r.result(t, api.VolumeRestoreFailed); got.GetReason() != api.ReasonVolumeInUse {
				t.Errorf("failed %v", got)
			}
			r.has(t, r.path("rows"), "newer")
			if n := r.runs(t); n > 0 {
				t.Errorf("restic restored %d times", n)
			}
		})
	}
}

// switchable makes the volume newUID in the engine.
func (r *toRestore) switchable(t *testing.T) {
	t.Helper()
	labels := map[string]string{
		api.LabelCluster: "c1", api.LabelNode: "n1", api.LabelVolume: r.as + ".data", api.LabelVolumeUID: newUID, api.LabelOwner: "source/git",
	}
	if err := r.engine.CreateVolume(t.Context(), api.EngineVolume(r.as, "data", newUID), labels); err != nil {
		t.Fatal(err)
	}
}

// TestRestoreAndTheAgent: an agent that is stopped in the middle begins again with an empty volume, and one that is stopped
// afterwards only repeats the answer.
func TestRestoreAndTheAgent(t *testing.T) {
	r := newToRestore(t)
	let := r.hold(t)
	r.restore(r.wanted())
	waitUntil(t, func() bool { return r.exists("restore-waits") })
	r.write(t, r.path("half"), "half")
	r.stop()
	if got, _ := r.holds(); got[newUID].GetRestored().GetState() != api.VolumeRestoring {
		t.Errorf("restored %v", got[newUID].GetRestored())
	}
	let()
	r.run(t)
	first := r.result(t, api.VolumeRestored)
	r.has(t, r.path("rows"), "1")
	if there(r.path("half")) {
		t.Error("the volume has a file of the first attempt")
	}
	runs := r.runs(t)
	r.stop()
	r.mu.Lock()
	r.held = nil
	r.mu.Unlock()
	r.run(t)
	if again := r.result(t, api.VolumeRestored); !cmp.Equal(first.GetSnapshot(), again.GetSnapshot()) || r.runs(t) != runs {
		t.Errorf("after %d runs %v, before %d %v", r.runs(t), again, runs, first)
	}
	// Without the request, the next agent forgets it.
	r.stop()
	r.restoreEnds(newUID)
	r.run(t)
	waitUntil(t, func() bool {
		left, err := filepath.Glob(filepath.Join(r.cfg.DataDir, "restores", "*"))
		return err == nil && len(left) == 0
	})
}

// TestRestoreEnds: when the server wants the volume to be removed, restic has ended before.
func TestRestoreEnds(t *testing.T) {
	r := newToRestore(t)
	let := r.hold(t)
	r.restore(r.wanted())
	waitUntil(t, func() bool { return r.exists("restore-waits") })
	r.restoreEnds(newUID)
	r.mu.Lock()
	remove := &carav1.RemoveVolume{Uid: newUID, Project: r.as, Name: "data"}
	r.removals = map[string]*carav1.RemoveVolume{newUID: remove}
	r.send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_RemoveVolume{RemoveVolume: remove}})
	r.mu.Unlock()
	waitUntil(t, func() bool { return r.removing() == 0 })
	let()
	if _, ok := r.volumes(t)[api.EngineVolume("p", "data", newUID)]; ok {
		t.Error("the volume is left")
	}
	if there(r.path("rows")) {
		t.Error("it was restored")
	}
	r.ask("t2") // nothing is left that would block a backup
	r.ended(t, "t2", api.BackupSucceeded)
}

// TestRestoreFails: the result names the reason, without the value of a Secret.
func TestRestoreFails(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(q *carav1.RestoreVolume)
		reason api.Reason
		says   string
	}{
		"the Secret cannot be used": {func(q *carav1.RestoreVolume) { q.Problem, q.Values = "there is no Secret s", nil }, api.ReasonBackupSecret, "no Secret s"},
		"wrong password": {
			func(q *carav1.RestoreVolume) { q.Values[api.BackupPassword] = []byte("another password") }, api.ReasonWrongPassword, "password",
		},
		"no snapshot": {func(q *carav1.RestoreVolume) { q.FromProject = "q" }, api.ReasonSnapshotNotFound, "volume data of project q"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newToRestore(t)
			q := r.wanted()
			tt.change(q)
			r.restore(q)
			got := r.result(t, api.VolumeRestoreFailed)
			if got.GetReason() != string(tt.reason) || !strings.Contains(got.GetMessage(), tt.says) || strings.Contains(got.GetMessage(), r.dir) ||
				strings.Contains(got.GetMessage(), "another password") {
				t.Errorf("failed %v, want %s that says %q", got, tt.reason, tt.says)
			}
		})
	}
}

// TestRestoreAwaitsTheRepository: a locked repository is tried again, with the newest values of the Secret, and says so.
func TestRestoreAwaitsTheRepository(t *testing.T) {
	r := newToRestore(t)
	r.write(t, filepath.Join(r.shared, "locked"), "")
	q := r.wanted()
	right := q.GetValues()
	q.Values = maps.Clone(right)
	q.Values[api.BackupPassword] = []byte("another password")
	r.restore(q)
	waitUntil(t, func() bool {
		held, _ := r.holds()
		s := held[newUID].GetRestored()
		return s.GetState() == api.VolumeRestoring && strings.Contains(s.GetMessage(), "locked") && strings.Contains(s.GetMessage(), "tried again")
	})
	q = r.wanted()
	r.restore(q)
	refused := r.refusals()
	r.away(true) // it continues after a reconnection
	waitUntil(t, func() bool { return r.refusals() > refused })
	r.away(false)
	_, taken := r.holds()
	waitUntil(t, func() bool { _, now := r.holds(); return now > taken+2 })
	if err := os.Remove(filepath.Join(r.shared, "locked")); err != nil {
		t.Fatal(err)
	}
	if got := r.result(t, api.VolumeRestored); got.GetMessage() != "" {
		t.Errorf("restored %v", got)
	}
	r.has(t, r.path("rows"), "1")
}

// TestNoBackupDuringARestore: a backup that is requested meanwhile is made afterwards.
func TestNoBackupDuringARestore(t *testing.T) {
	r := newToRestore(t)
	let := r.hold(t)
	r.restore(r.wanted())
	waitUntil(t, func() bool { return r.exists("restore-waits") })
	r.ask("t2")
	r.put("q", services("job"))
	r.wait(t, "q", phase(api.PhaseRunning)) // the request has arrived before
	r.mu.Lock()
	during := r.projects["p"].GetStatus().GetBackup().GetToken()
	r.mu.Unlock()
	let()
	r.result(t, api.VolumeRestored)
	r.ended(t, "t2", api.BackupSucceeded)
	if during == "t2" {
		t.Error("the backup began during the restore")
	}
}
