package e2e

import (
	"testing"

	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testregistry"
)

// TestWaitForGit: a pipeline that pushes and then waits gets an answer about its own push, with the exit codes of apply --wait,
// whatever else the source holds.
func TestWaitForGit(t *testing.T) {
	w := oneNode(t)
	good, failing, large, taken, late := w.name("good"), w.name("failing"), w.name("large"), w.name("taken"), w.name("late")
	repo := w.repository("previews")
	commit := func(message string) {
		t.Helper()
		repo.Commit(message)
		repo.Push()
	}
	wait := func(name string, code int, stdout string, words ...string) {
		t.Helper()
		r := w.ctl("", "reconcile", "previews", "--wait", "--project", name, "--timeout", "2m")
		if r.Code != code || r.Stdout != stdout {
			t.Errorf("%s: %+v, want code %d and %q", name, r, code, stdout)
		}
		w.says(name, r.Stderr, words...)
	}
	url := "http://" + good + ".test/\n"

	repo.Write("good.yaml", w.web(good, testimage.WebV1))
	commit("One project")
	if r := w.ctl("", "reconcile", "previews", "--wait", "--timeout", "2m"); r.Code != 0 || r.Stdout[len(r.Stdout)-len(url):] != url {
		t.Errorf("the whole source: %+v", r)
	}
	w.answers("n1", good+".test", "/", 200, "web v1")

	// The push that is awaited is the newest one, though the project of before runs all along.
	repo.Write("good.yaml", w.web(good, testimage.WebV2))
	repo.Write("broken.yaml", "apiVersion: caravanserai/v1\nkind: Project\nmetadata: {name: broken}\nspec: {service: []}\n")
	commit("A new version, and somebody's broken file")
	wait(good, 0, url)
	w.answers("n1", good+".test", "/", 200, "web v2")
	r := w.ctl("", "reconcile", "previews", "--wait")
	if r.Code != 1 {
		t.Errorf("a source with a broken file: %+v", r)
	}
	w.says("the whole source", r.Stderr, "InvalidManifests", "broken.yaml:4:8")
	wait("broken", 1, "", `source "previews" does not declare project "broken" at `, "broken.yaml:4:8")

	repo.Remove("broken.yaml")
	repo.Write("failing.yaml", w.web(failing, testregistry.New(t).Ref("missing:1")))
	repo.Write("large.yaml", w.web(large, testimage.WebV1)+"  nodeSelector: {is: nowhere}\n")
	repo.Write("taken.yaml", project(taken, "services: [{name: web, image: "+testimage.WebV1+"}]\ningress: [{name: web, host: "+good+".test, target: {service: web, port: 8080}}]"))
	commit("What cannot run")
	wait(failing, 3, "", `project "`+failing+`" failed: ImagePullFailed: `, "name unknown")
	wait(taken, 3, "", `project "`+taken+`" does not run as source "previews" says: Refused: `, good)
	wait("undeclared", 1, "", `does not declare project "undeclared"`)
	if r := w.ctl("", "reconcile", "previews", "--wait", "--project", large, "--timeout", "5s"); r.Code != 2 {
		t.Errorf("no node fits: %+v", r)
	}

	// What does not exist yet is awaited, and what goes, too.
	waiting := w.begin("wait", "project", late, "--timeout", "4m")
	w.prints(waiting, "project/"+late+" does not exist yet")
	repo.Write("late.yaml", w.web(late, testimage.WebV1))
	repo.Remove("failing.yaml")
	commit("One comes late, one goes")
	w.ctl("", "reconcile", "previews", "--no-wait")
	w.prints(waiting, "http://"+late+".test/")
	w.want(w.ctl("", "wait", "project", failing, "--for", "deleted"), 0, "project \""+failing+"\" is gone\n", "")
}
