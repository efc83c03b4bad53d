package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testbrowser"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// actor is a person who acts with the page.
type actor struct {
	*testCluster
	tab *testbrowser.Tab
}

// ask opens the question of an action from the view of its object, which offers it, and wants a part of what it says will happen.
func (a actor) ask(view, action, effect string) {
	a.Helper()
	_, name, _ := strings.Cut(view, "/")
	a.must(a.tab.Go(a.URL() + "/ui/" + view))
	a.must(a.tab.Click(`a[href="/ui/do/` + action + "/" + name + `"]`))
	a.must(a.tab.Shows("main", effect))
}

// do sends the form of a question, and wants what the page says then.
func (a actor) do(says string) {
	a.Helper()
	a.must(a.tab.Click("main button.main"))
	a.must(a.tab.Shows(".done", says))
}

// undo takes back what was just done.
func (a actor) undo(says string) {
	a.Helper()
	a.must(a.tab.Click(".done a"))
	a.do(says)
}

// TestActionsInThePage acts with the page alone, and looks at the containers: what each question promised happens. The parts follow
// one another on one cluster of two nodes.
func TestActionsInThePage(t *testing.T) {
	testneed.Program(t, "restic", "restic")
	b := testbrowser.Open(t)
	repositories := t.TempDir()
	w := dataNode(t, "--backup-dir", repositories)
	a := actor{w, w.pageOf(b)}
	repo := w.repository("platform")
	shop := w.name("shop")
	repo.Write("shop.yaml", keeper(shop, "one"))
	w.push(repo, "One")
	w.running(shop)

	a.overridesGit(repo.Name, shop, func(word string) {
		repo.Write("shop.yaml", keeper(shop, word))
		w.push(repo, "Now "+word)
	})
	a.restartsOnce(shop)
	a.restoresData(repositories)
	a.retriesAndExtends()
	w.agent("n2", w.engines[0], nil)
	a.drains()
}

// overridesGit: git waits until the override ends, and a rollback brings back the containers of before. A view that is outdated does
// nothing.
func (a actor) overridesGit(source, shop string, push func(word string)) {
	a.Helper()
	a.ask("projects/"+shop, "override", "source "+source+" does not change or delete this project")
	a.must(a.tab.Type("#f-reason", "looking into it"))
	a.do("Git does not change this project")
	before := a.containers(a.engines[0], shop)["tools"]
	push("two")
	if now := a.containers(a.engines[0], shop)["tools"]; now != before {
		a.Errorf("a push replaced the container of an overridden project: %s, then %s", before, now)
	}
	a.must(a.tab.Go(a.URL() + "/ui/projects/" + shop))
	a.must(a.tab.Shows("table.diff", "two"))
	a.must(a.tab.Click(`a[href="/ui/do/clear-override/` + shop + `"]`))
	a.do("Git decides about this project again")
	a.wears(shop, "two")

	a.ask("projects/"+shop, "rollback", "one")
	push("three")
	a.wears(shop, "three")
	a.must(a.tab.Type("#f-reason", "one was better"))
	a.must(a.tab.Click("main button.main"))
	a.must(a.tab.Shows("[role=alert]", "has changed since you looked. Nothing was done"))
	a.wears(shop, "three")
	a.must(a.tab.Shows("table.diff", "three"))
	a.must(a.tab.Shows("#command", "--reason 'one was better'"))
	a.do("The earlier spec was restored")
	a.wears(shop, "one")
}

// wears waits until a project runs with this word in its environment.
func (a actor) wears(name, word string) {
	a.Helper()
	a.until(name, "runs with the word "+word, func(p *carav1.Project) bool {
		return testcluster.Runs(p) && p.GetSpec().GetServices()[0].GetEnv()[0].GetValue() == word
	})
	if r := a.ctl("", "exec", name, "--", "sh", "-c", "echo $WORD"); strings.TrimSpace(r.Stdout) != word {
		a.Errorf("the container of %s has the word %q (%s), want %s", name, r.Stdout, r.Stderr, word)
	}
}

// restartsOnce: a form that is sent twice restarts a service once.
func (a actor) restartsOnce(shop string) {
	a.Helper()
	before := a.startTimes(a.engines[0], shop)["tools"]
	a.ask("projects/"+shop, "restart", "stopped and started again")
	a.must(a.tab.Eval(`window.twice = new URLSearchParams(new FormData(document.querySelector("form[data-once]"))).toString()`, nil))
	a.must(a.tab.Eval(`fetch(document.querySelector("form[data-once]").action, {method: "POST", body: new URLSearchParams(window.twice)}).then(() => window.sent = true)`, nil))
	a.must(a.tab.Until("window.sent"))
	token := a.project(shop).GetStatus().GetRestartToken()
	a.do("The restart was requested")
	if now := a.project(shop).GetStatus().GetRestartToken(); token == "" || now != token {
		a.Errorf("the restart tokens after one and two submissions are %q and %q, want the same", token, now)
	}
	a.until(shop, "has restarted", func(p *carav1.Project) bool {
		return testcluster.Runs(p) && a.startTimes(a.engines[0], shop)["tools"] != before
	})
}

// restoresData: a backup brings back the data, and the data of before is kept.
func (a actor) restoresData(repositories string) {
	a.Helper()
	name := a.name("kept")
	a.backupSecret(name, repositories)
	a.apply(keeper(name, "one", "backup: {secretRef: "+name+"}"))
	a.running(name)
	a.keeps(name, "first")
	a.ask("projects/"+name, "backup", "All Managed volumes are backed up now")
	a.do("The backup was requested")
	a.until(name, "is backed up", func(p *carav1.Project) bool { return len(p.GetStatus().GetBackup().GetSnapshots()) == 1 })
	a.keeps(name, "second")
	a.ask("projects/"+name, "restore", "The data of the newest backup")
	old := a.volumeIs(api.VolumeName(name, "data"), api.VolumeInUse)
	a.do("The restore was requested")
	a.until(name, "is restored", func(p *carav1.Project) bool {
		return testcluster.Runs(p) && api.VolumeUse(p, "data").GetUid() != old.GetMetadata().GetUid()
	})
	a.kept(name, "first")
	aside := a.volumeIs(api.VolumeName(name, "data")+"."+old.GetMetadata().GetUid()[:8], api.VolumeRetained)
	a.has(a.engines[0], aside, "second")
	a.must(a.tab.Go(a.URL() + "/ui/volumes"))
	a.must(a.tab.Shows("#v-"+strings.ReplaceAll(aside.GetMetadata().GetName(), ".", `\.`), api.VolumeRetained))
}

// retriesAndExtends: a failed preview shows why, lives longer, and starts again.
func (a actor) retriesAndExtends() {
	a.Helper()
	name := a.name("preview")
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	a.apply(project(name, `
expireAt: "`+end.Format(time.RFC3339)+`"
services:
- name: app
  image: `+testimage.Busybox+`
  command: [sh, -c, "echo no database; exit 7"]
  restartPolicy: Never`))
	a.must(a.tab.Go(a.URL() + "/ui/projects/" + name))
	a.must(a.tab.Shows(".note.bad", "no database"))
	first := a.containers(a.engines[0], name)["app"]
	a.ask("projects/"+name, "extend", "The time that you choose is added")
	a.do("The project lives longer now")
	if got := a.project(name).GetStatus().GetExpireAt().AsTime(); !got.Equal(end.Add(24 * time.Hour)) {
		a.Errorf("it ends at %s, want a day after %s", got, end)
	}
	a.ask("projects/"+name, "retry", "It starts again")
	a.do("The retry was requested")
	a.until(name, "has failed again", func(p *carav1.Project) bool {
		now := a.containers(a.engines[0], name)["app"]
		return p.GetStatus().GetPhase() == api.PhaseFailed && now != "" && now != first
	})
}

// drains: a cordoned node keeps its projects, and a drained one gives them to another.
func (a actor) drains() {
	a.Helper()
	a.ask("nodes/n2", "cordon", "gets no new projects")
	a.do("The node gets no new projects")
	name := a.toolbox("moving")
	if on := a.project(name).GetStatus().GetNodeRef(); on != "n1" {
		a.Errorf("the project runs on %s, and n2 is cordoned", on)
	}
	a.must(a.tab.Go(a.URL() + "/ui/nodes/n2?done=cordon"))
	a.undo("The node gets projects again")
	before := a.containers(a.engines[0], name)["tools"]
	a.ask("nodes/n1", "drain", name)
	a.do("The node is being drained")
	a.until(name, "runs on n2", func(p *carav1.Project) bool { return testcluster.Runs(p) && p.GetStatus().GetNodeRef() == "n2" })
	if now := a.containers(a.engines[0], name)["tools"]; now == before || now == "" {
		a.Errorf("container %s is %s after the drain", before, now)
	}
	a.undo("The node gets projects again")
	a.until(name, "stays", func(p *carav1.Project) bool { return p.GetStatus().GetNodeRef() == "n2" })
}
