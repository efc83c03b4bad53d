package e2e

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// inContainer returns a file of a container, as `mode content`.
func (w *testCluster) inContainer(project, service, path string) string {
	w.Helper()
	docker, err := testdocker.Client(w.engines[0])
	w.must(err)
	defer docker.Close()
	body, _, err := docker.CopyFromContainer(w.Context(), w.containers(w.engines[0], project)[service], path)
	w.must(err)
	defer body.Close()
	archive := tar.NewReader(body)
	header, err := archive.Next()
	w.must(err)
	data, err := io.ReadAll(archive)
	w.must(err)
	return fmt.Sprintf("%04o %s", header.Mode&0o777, data)
}

// TestFilesOfTheRepository: files come into the containers as they are in git, a changed file recreates exactly its users, and a
// file that is missing holds its manifest alone.
func TestFilesOfTheRepository(t *testing.T) {
	w := oneNode(t)
	name, other := w.name("shop"), w.name("other")
	repo := w.repository("platform")
	service := func(name string) string {
		return "- name: " + name + "\n  image: " + testimage.WebV1 + "\n"
	}
	repo.Write("apps/shop.yaml", project(name, "\nservices:\n"+service("web")+`  files:
  - {path: /etc/web/web.conf, from: ./web.conf}
  - {path: /etc/web/conf.d, from: ../shared/}
`+service("api")+`  files:
  - {path: /etc/web/conf.d, from: ../shared/}
`+service("plain")))
	repo.Write("apps/other.yaml", project(other, "\nservices:\n"+service("web")+"  files:\n  - {path: /f, from: ./web.conf}\n"))
	repo.Write("apps/web.conf", "one\r\n")
	repo.Write("shared/run", "\x00\xff binary")
	repo.Write("shared/sub/.hidden", "hidden")
	w.must(os.Chmod(filepath.Join(repo.Work, "shared/run"), 0o755)) //nolint:gosec // git keeps only this
	w.push(repo, "Start")
	w.running(name)
	w.running(other)
	for path, want := range map[string]string{
		"/etc/web/web.conf": "0444 one\r\n", "/etc/web/conf.d/run": "0555 \x00\xff binary", "/etc/web/conf.d/sub/.hidden": "0444 hidden",
	} {
		if got := w.inContainer(name, "web", path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}

	before, beside := w.containers(w.engines[0], name), w.containers(w.engines[0], other)
	repo.Write("apps/web.conf", "two\n")
	w.push(repo, "Change a file")
	w.until(name, "runs with the changed file", func(p *carav1.Project) bool {
		return w.containers(w.engines[0], name)["web"] != before["web"] && p.GetStatus().GetPhase() == api.PhaseRunning && api.IsTrue(p.GetStatus().GetConditions(), api.CondReady)
	})
	w.until(other, "runs with the changed file", func(p *carav1.Project) bool {
		return w.containers(w.engines[0], other)["web"] != beside["web"] && api.IsTrue(p.GetStatus().GetConditions(), api.CondReady)
	})
	after := w.containers(w.engines[0], name)
	if after["api"] != before["api"] || after["plain"] != before["plain"] {
		t.Errorf("the containers were %v and are %v: only web uses the file", before, after)
	}
	if got := w.inContainer(name, "web", "/etc/web/web.conf"); got != "0444 two\n" {
		t.Errorf("the file is %q", got)
	}

	repo.Remove("shared")
	repo.Symlink("shared", "/etc")
	repo.Write("apps/web.conf", "three\n")
	w.push(repo, "Link the folder elsewhere")
	w.until(other, "runs with the third file", func(p *carav1.Project) bool {
		return api.IsTrue(p.GetStatus().GetConditions(), api.CondReady) && w.inContainer(other, "web", "/f") == "0444 three\n"
	})
	says := w.ctl("", "describe", "source", "platform").Stdout
	if !strings.Contains(says, "shared is a symbolic link") || !strings.Contains(says, "apps/shop.yaml:") {
		t.Errorf("describe says:\n%s", says)
	}
	if now := w.containers(w.engines[0], name); now["web"] != after["web"] {
		t.Error("the project whose file cannot be used did not stay as it was")
	}
}
