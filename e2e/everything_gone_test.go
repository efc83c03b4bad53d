package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// TestEverythingIsGone: the server and the only node are lost with their disks. An archive of the server and a repository of
// backups bring all projects back, with their data, on a new machine. docs/operations.md has the same steps.
func TestEverythingIsGone(t *testing.T) {
	testneed.Program(t, "restic", "restic")
	repositories := t.TempDir()
	w := dataNode(t, "--backup-dir", repositories)
	plain, data, idle := w.name("plain"), w.name("data"), w.name("idle")
	for _, name := range []string{data, idle} {
		w.backupSecret(name, repositories)
		w.apply(keeper(name, "one", "backup: {secretRef: "+name+"}"))
	}
	w.apply(w.web(plain, testimage.WebV1))
	w.running(plain, data, idle)
	w.keeps(data, "precious")
	w.keeps(idle, "quiet")
	for _, name := range []string{data, idle} {
		w.succeeds("backup", "project", name, "--wait")
	}
	archive := filepath.Join(t.TempDir(), "cara.tar")
	w.succeeds("backup", "server", archive)
	w.keeps(data, "later")

	w.Log("server, node, containers and volumes are lost")
	ctx, cancel := w.patience()
	defer cancel()
	labels, err := w.Labels(ctx)
	w.must(err)
	w.must(errors.Join(w.Server.Kill(), w.Agents["n1"].Kill()))
	w.must(testdocker.Remove(ctx, w.engines[0], labels))
	w.must(os.Rename(w.DataDir(), w.DataDir()+".lost"))

	w.Log("the server is back from its archive, and a new machine joins")
	w.must(os.Mkdir(w.DataDir(), 0o700))
	if out, err := exec.CommandContext(ctx, "tar", "-xf", archive, "-C", w.DataDir()).CombinedOutput(); err != nil {
		t.Fatalf("unpack the archive: %v %s", err, out)
	}
	w.must(w.StartServer(ctx))
	w.agent("n2", w.engines[0], nil, "--backup-dir", repositories)
	w.must(w.AwaitNode(ctx, "n1", api.NodeNotReady))

	w.Log("the data comes from the backups")
	for name, word := range map[string]string{data: "precious", idle: "quiet"} {
		w.succeeds("restore", name, "--wait", "--timeout", "3m")
		w.until(name, "runs on n2", func(p *carav1.Project) bool { return testcluster.Runs(p) && p.GetStatus().GetNodeRef() == "n2" })
		w.kept(name, word)
		w.volumeIs(api.VolumeName(name, "data"), api.VolumeInUse)
	}

	w.Log("the lost node goes for good")
	w.succeeds("drain", "n1", "--timeout", "1m")
	w.running(plain)
	w.succeeds("delete", "node", "n1")
	w.running(data, idle)
}
