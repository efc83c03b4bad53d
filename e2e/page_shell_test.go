package e2e

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testbrowser"
)

// pageOf opens the page in a tab, as the first administrator.
func (w *testCluster) pageOf(b *testbrowser.Browser) *testbrowser.Tab {
	w.Helper()
	tab, err := b.Tab()
	w.must(err)
	w.Cleanup(func() {
		for _, problem := range tab.Problems() {
			w.Errorf("the console of the page: %s", problem)
		}
		tab.Close()
	})
	w.must(tab.Go(strings.TrimSpace(w.ctl("", "page").Stdout)))
	return tab
}

// TestShellInThePage opens a shell in the browser: commands, a full-screen editor, the terminal's size and the exit code.
func TestShellInThePage(t *testing.T) {
	b := testbrowser.Open(t)
	w := oneNode(t)
	box := w.toolbox("box")
	tab := w.pageOf(b)
	w.must(tab.Go(w.URL() + "/ui/projects/" + box))
	w.must(tab.Click(`a[href="/ui/projects/` + box + `/shell?service=tools"]`))
	w.must(tab.Shows("#shell-note", "Connected"))
	keys := func(text string) {
		t.Helper()
		w.must(tab.Type(".xterm-helper-textarea", text))
	}
	keys("echo \"answer=$((40+2))\"\r")
	w.must(tab.Shows(".xterm-rows", "answer=42"))
	keys("vi /tmp/x\r")
	w.must(tab.Shows(".xterm-rows", "/tmp/x"))
	keys("iwritten by vi\x1b")
	w.must(tab.Shows(".xterm-rows", "- /tmp/x [Modified]")) // what follows an Escape at once is a part of its sequence
	keys(":wq\r")
	keys("clear; sed s/written/read/ /tmp/x\r")
	w.must(tab.Shows(".xterm-rows", "read by vi"))
	_, err := tab.Picture(700, 500, false) // a smaller window
	w.must(err)
	keys("clear; while [ \"$(stty size | cut -d' ' -f2)\" -gt 80 ]; do usleep 100000; done; echo \"narrow=$((1+1))\"\r")
	w.must(tab.Shows(".xterm-rows", "narrow=2"))
	keys("exit 3\r")
	w.must(tab.Shows("#shell-note", "exit code 3"))
	w.must(tab.Click("#shell-again"))
	w.must(tab.Shows("#shell-note", "Connected"))
	w.must(tab.Go(w.URL() + "/ui/projects/" + box)) // its shell ends with the view
	w.must(tab.Shows("main", "runs \"sh\" in service tools"))
	w.alone(box, "tools")
}
