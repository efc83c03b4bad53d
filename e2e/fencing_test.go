package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestDeletedWhileTheAgentIsAway: what was deleted meanwhile is gone when it is back, what was made again under the same
// name is made anew and sees nothing of its namesake's data, and what nobody touched is not touched.
func TestDeletedWhileTheAgentIsAway(t *testing.T) {
	w := oneNode(t)
	host := w.engines[0]
	again, asked, forced, settled := w.name("again"), w.name("asked"), w.name("forced"), w.name("settled")
	data := func(name string) string {
		return project(name, `
services:
- name: db
  image: `+testimage.KV+`
  volumeMounts: [{name: data, mountPath: /data}]
volumes: [{name: data, type: Ephemeral}]`)
	}
	w.apply(data(again) + "---\n" + data(asked) + "---\n" + data(forced) + "---\n" + data(settled))
	w.running(again, asked, forced, settled)
	before := w.equal("n1", host)
	startedAt := w.state(host, before[settled+".db"]).StartedAt

	w.must(w.Agents["n1"].Kill())
	for _, name := range []string{again, forced} {
		if r := w.ctl("", "delete", "project", name, "--force"); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
	}
	w.says("the deletion", w.ctl("", "delete", "project", asked, "--wait=false").Stdout, "is being deleted")
	w.apply(data(again))
	w.must(w.RestartAgent("n1"))
	w.gone(asked, forced)
	w.running(again, settled)
	after := w.equal("n1", host)
	if before[again+".db"] == after[again+".db"] {
		t.Error("the container of the project that was deleted serves its namesake")
	}
	w.calm(host, settled, before[settled+".db"], startedAt)
}

// TestServerRestoredFromAnOlderBackup goes back behind an update, a deletion, a new project and a move in place. Its word
// is law: the node ends as the backup says, and what the backup does not know is swept.
func TestServerRestoredFromAnOlderBackup(t *testing.T) {
	w := oneNode(t)
	host := w.engines[0]
	settled, updated, deleted, retried, later := w.name("settled"), w.name("updated"), w.name("deleted"), w.name("retried"), w.name("later")
	w.apply(w.web(settled, testimage.WebV1) + "---\n" + w.web(updated, testimage.WebV1) + "---\n" + w.web(deleted, testimage.WebV1))
	w.apply(project(retried, "services: [{name: web, image: \"cara-fixture/none:1\", pullPolicy: Never}]"))
	w.running(settled, updated, deleted)
	w.failed(retried, "ImageNotFound")
	before := w.equal("n1", host)
	startedAt := w.state(host, before[settled+".web"]).StartedAt
	backup := filepath.Join(t.TempDir(), "cara.tar")
	if r := w.ctl("", "backup", backup); r.Code != 0 || !strings.Contains(r.Stderr, "write caractrl backup server") { // the old spelling
		t.Fatalf("%+v", r)
	}

	w.apply(w.web(updated, testimage.WebV2) + "---\n" + w.web(later, testimage.WebV1) + "---\n" + w.web(retried, testimage.WebV1))
	w.running(updated, later, retried)
	if r := w.ctl("", "delete", "project", deleted); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	w.gone(deleted)
	w.equal("n1", host)

	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.Server.Kill())
	w.must(os.RemoveAll(w.DataDir()))
	w.must(os.Mkdir(w.DataDir(), 0o700))
	if out, err := exec.CommandContext(ctx, "tar", "-xf", backup, "-C", w.DataDir()).CombinedOutput(); err != nil {
		t.Fatalf("unpack the backup: %v %s", err, out)
	}
	w.must(w.StartServer(ctx))
	w.ready("n1")
	w.running(settled, updated, deleted)
	w.answers("n1", updated+".test", "/", 200, "web v1")
	w.must(w.AwaitNothing(ctx, host, later))
	w.equal("n1", host)
	w.calm(host, settled, before[settled+".web"], startedAt)
}

// TestTwoAgentsClaimOneName: a stranger is refused as long as the node is alive. A copy of the node's own directory is the
// node as far as anybody can tell: then the newer one is, the older one stops, and no container notices.
func TestTwoAgentsClaimOneName(t *testing.T) {
	w := oneNode(t)
	host, name := w.engines[0], w.name("settled")
	w.apply(w.web(name, testimage.WebV1))
	w.running(name)
	id := w.equal("n1", host)[name+".web"]
	startedAt := w.state(host, id).StartedAt
	claim := func(as string) *testcluster.Process {
		t.Helper()
		_, err := w.StartAgent(testcluster.Agent{Name: as, DockerHost: host, Pool: w.pools["n1"], Flags: []string{"--node-name", "n1"}})
		w.must(err)
		return w.Agents[as]
	}
	ends := func(p *testcluster.Process, words ...string) {
		t.Helper()
		ctx, cancel := w.patience()
		defer cancel()
		w.must(p.Wait(ctx))
		if p.ExitCode() == 0 {
			t.Error("the agent that has no right to the name ended well")
		}
		w.says("its log", p.Tail(20), words...)
	}
	ends(claim("stranger"), "n1")
	w.ready("n1")
	w.calm(host, name, id, startedAt)

	if out, err := exec.CommandContext(t.Context(), "cp", "-a", filepath.Join(w.Dir, "agent-n1"), filepath.Join(w.Dir, "agent-copy")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	claim("copy")
	ends(w.Agents["n1"], "another agent has", "n1")
	w.ready("n1")
	w.equal("n1", host)
	w.calm(host, name, id, startedAt)
}
