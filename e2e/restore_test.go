package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// backupSecret makes a Secret with a new repository in a directory that the agents offer.
func (w *testCluster) backupSecret(name, dir string) {
	w.Helper()
	repository, password := filepath.Join(w.TempDir(), "repository"), filepath.Join(w.TempDir(), "password")
	w.write(repository, filepath.Join(dir, name))
	w.write(password, "correct horse battery staple")
	if r := w.ctl("", "create", "secret", name, "--type", "backup", "--from-file", "repository="+repository, "--from-file", "password="+password); r.Code != 0 {
		w.Fatalf("create secret: %+v", r)
	}
}

// succeeds runs caractrl, which must succeed.
func (w *testCluster) succeeds(args ...string) testcluster.Result {
	w.Helper()
	r := w.ctl("", args...)
	if r.Code != 0 {
		w.Fatalf("caractrl %s: %+v", strings.Join(args, " "), r)
	}
	return r
}

// has wants a word in the file `word` of a volume.
func (w *testCluster) has(host string, v *carav1.Volume, word string) {
	w.Helper()
	data, err := os.ReadFile(filepath.Join(w.dataOf(host, v), "word"))
	if err != nil || strings.TrimSpace(string(data)) != word {
		w.Errorf("the volume %s has %q, %v, want %q", inEngine(v), data, err, word)
	}
}

// TestRestore: the project continues with the data of its backup, and the data that it had is kept. The same backup becomes the
// data of another project.
func TestRestore(t *testing.T) {
	testneed.Program(t, "restic", "restic")
	repositories := t.TempDir()
	w := dataNode(t, "--backup-dir", repositories)
	name, other := w.name("restored"), w.name("other")
	volume := api.VolumeName(name, "data")
	w.backupSecret(name, repositories)
	w.apply(keeper(name, "one", "backup: {secretRef: "+name+"}"))
	w.running(name)
	w.keeps(name, "first")
	w.succeeds("backup", "project", name, "--wait")
	w.keeps(name, "second")
	old := w.volumeIs(volume, api.VolumeInUse)

	w.succeeds("restore", name, "--wait", "--timeout", "3m")
	w.running(name)
	w.kept(name, "first")
	restored := w.volumeIs(volume, api.VolumeInUse)
	aside := w.volumeIs(volume+"."+old.GetMetadata().GetUid()[:8], api.VolumeRetained)
	if restored.GetMetadata().GetUid() == old.GetMetadata().GetUid() || inEngine(aside) != inEngine(old) {
		t.Errorf("volume %s became %s, and %s is kept", inEngine(old), inEngine(restored), inEngine(aside))
	}
	w.has(w.engines[0], aside, "second")

	w.succeeds("restore", name, "--to", other, "--wait", "--timeout", "3m")
	w.volumeIs(api.VolumeName(other, "data"), api.VolumeRetained)
	w.apply(keeper(other, "one"))
	w.running(other)
	w.kept(other, "first")
	w.kept(name, "first")
	if got := w.volumeIs(volume, api.VolumeInUse); got.GetMetadata().GetUid() != restored.GetMetadata().GetUid() {
		t.Errorf("project %s has the volume %s now, want %s", name, inEngine(got), inEngine(restored))
	}
}

// TestRestoreAfterTheLossOfANode: with onNodeLoss Restore, another node restores the last backup and runs the project. The lost
// node gives the project up when it is back, and keeps its data.
func TestRestoreAfterTheLossOfANode(t *testing.T) {
	testneed.Program(t, "restic", "restic")
	repositories := t.TempDir()
	w, second := twoNodesWith(t, []string{"--backup-dir", repositories})
	hosts := map[string]string{"n1": w.engines[0], "n2": second.Host}
	for _, host := range hosts {
		testdocker.Images(t, host, testimage.Busybox)
	}
	name := w.name("survivor")
	volume := api.VolumeName(name, "data")
	w.backupSecret(name, repositories)
	w.apply(keeper(name, "one", "backup: {secretRef: "+name+"}", "onNodeLoss: Restore", "rescheduleAfter: 5s"))
	from := w.until(name, "runs", testcluster.Runs).GetStatus().GetNodeRef()
	to := map[string]string{"n1": "n2", "n2": "n1"}[from]
	w.keeps(name, "first")
	w.succeeds("backup", "project", name, "--wait")
	w.keeps(name, "second")
	old := w.volumeIs(volume, api.VolumeInUse)

	w.must(w.Agents[from].Kill())
	w.until(name, "runs on "+to, func(p *carav1.Project) bool { return testcluster.Runs(p) && p.GetStatus().GetNodeRef() == to })
	w.kept(name, "first")
	w.must(w.RestartAgent(from))
	w.ready(from)
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.AwaitNothing(ctx, hosts[from], name))
	aside := w.volumeIs(volume+"."+old.GetMetadata().GetUid()[:8], api.VolumeRetained)
	w.has(hosts[from], aside, "second")
	w.running(name)
	w.kept(name, "first")
}
