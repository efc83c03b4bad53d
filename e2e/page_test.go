package e2e

import (
	"net/url"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testbrowser"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestPage follows a push on the page, in a real browser: what was pushed appears without a reload, its logs run on, and a
// project that fails shows why, with its last lines. The link of caractrl logs in.
func TestPage(t *testing.T) {
	b := testbrowser.Open(t)
	w := oneNode(t)
	testdocker.Images(t, w.engines[0], testimage.Busybox)
	repo := w.repository("platform")
	good, bad := w.name("talk"), w.name("fails")
	run := func(name, policy, command string) string {
		return project(name, `
services:
- name: app
  image: `+testimage.Busybox+`
  command: [sh, -c, "`+command+`"]
  init: true
  restartPolicy: `+policy+`
  stopGracePeriod: 1s`)
	}
	tab, err := b.Tab()
	w.must(err)
	defer tab.Close()
	link := strings.TrimSpace(w.ctl("", "page").Stdout)
	if u, err := url.Parse(link); err != nil || u.Path != "/ui/login" || !strings.HasPrefix(link, w.URL()) {
		t.Fatalf("caractrl page prints %q, want a link to %s", link, w.URL())
	}
	w.must(tab.Go(link))
	w.must(tab.Go(w.URL() + "/ui/projects"))
	w.must(tab.Until("document.getElementById('main').dataset.open"))
	w.must(tab.Eval("window.same = true", nil))

	repo.Write("good.yaml", run(good, "Always", "i=0; while sleep 0.2; do i=$((i+1)); echo '<b>tick</b>' $i; done"))
	repo.Write("bad.yaml", run(bad, "Never", "echo no database; exit 7"))
	w.push(repo, "A talker and a failure")
	w.must(tab.Shows("#p-"+good, "Running"))
	w.must(tab.Shows("#p-"+bad, "Failed"))
	w.must(tab.Until("window.same"))

	w.must(tab.Go(w.URL() + "/ui/projects/" + bad))
	w.must(tab.Shows(".note.bad", "no database"))
	w.must(tab.Shows(".facts", "A talker and a failure"))
	w.must(tab.Click(`a[href="/ui/projects/` + bad + `/logs"]`))
	w.must(tab.Shows("#log", "no database"))
	w.must(tab.Go(w.URL() + "/ui/projects/" + good))
	w.must(tab.Click("#plots > summary"))
	w.must(tab.Eval("document.getElementById('plots').scrollIntoView()", nil))                        // what nobody sees is not loaded again
	w.must(tab.Until(`document.querySelector('#plots svg[aria-label^="CPU of app"] .line[d^="M"]')`)) // real figures, a few intervals later
	w.must(tab.Go(w.URL() + "/ui/projects/" + good + "/logs?service=app"))
	w.must(tab.Shows("#log", "<b>tick</b> 5"))
	w.must(tab.Eval("window.lines = document.getElementById('log').childElementCount", nil))
	w.must(tab.Until("document.getElementById('log').childElementCount > window.lines + 3"))
	for _, problem := range tab.Problems() {
		t.Errorf("the console of the page: %s", problem)
	}
}
