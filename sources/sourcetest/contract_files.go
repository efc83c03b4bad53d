package sourcetest

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func onlyProjects(t *testing.T, w *Harness) {
	w.Subject.Write("s.yaml", "apiVersion: caravanserai/v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  password: hunter2\n")
	p := w.two()
	w.want(t, "a a.yaml:1", "b deep/b.yml:1")
	if len(p.Head.FileErrors) != 1 || !strings.HasPrefix(p.Head.FileErrors[0].Message, "a Secret in a source must be encrypted by SOPS") {
		t.Errorf("errors = %v", p.Head.FileErrors)
	}
}

func otherTools(t *testing.T, w *Harness) {
	w.Subject.Write("package.json", `{"name": "shop"}`)
	w.Subject.Write("package-lock.json", `{"packages": "`+strings.Repeat("x", 2<<20)+`"}`)
	w.Subject.Write("docker-compose.yml", "services:\n  web:\n    image: nginx\n")
	w.Subject.Write("chart/templates/web.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {{ .Release.Name }}\n")
	p := w.two()
	w.want(t, "a a.yaml:1", "b deep/b.yml:1")
	if !p.Head.Complete || p.Head.ErrorCount != 0 {
		t.Errorf("head = %v", p.Head)
	}
	var warnings []string
	for _, f := range p.Head.Warnings {
		warnings = append(warnings, f.File+" "+f.Message)
	}
	want := []string{
		"chart/templates/web.yaml is skipped: it looks like a Helm template", "docker-compose.yml is skipped: it looks like a Compose file; a source with format: Compose runs such files, and caractrl convert makes a manifest of one",
		"package-lock.json is skipped: it looks like a file of an npm package", "package.json is skipped: it looks like a file of an npm package",
	}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	w.Subject.Write("a.yaml", "services:\n  web:\n    image: nginx\n")
	w.Subject.Publish()
	w.Hint()
	w.Wait("the project is held", func() bool {
		return slices.Equal(w.Claims(), []string{"a a.yaml:1 held: a.yaml is skipped: it looks like a Compose file", "b deep/b.yml:1"})
	})
}

func notRead(t *testing.T, w *Harness) {
	w.Subject.Write("apps/a.yaml", Project("a", "web:1"))
	w.Subject.Write("b.yaml", Project("b", "web:1"))
	w.Subject.Write("c.yaml", Project("c", "web:1"))
	w.Subject.Publish()
	w.Create()
	w.Published(1)
	until := func(what string, claims ...string) {
		t.Helper()
		w.Subject.Publish()
		w.Hint()
		w.Wait(what, func() bool { return slices.Equal(w.Claims(), claims) })
	}
	const (
		link   = "a apps/a.yaml:1 held: apps is a symbolic link, and links are not followed"
		hidden = "b b.yaml:1 held: .b.yaml is hidden: its name or its folder's name begins with a dot"
	)
	w.Subject.Remove("apps/a.yaml")
	w.Subject.Remove("apps")
	w.Subject.Symlink("apps", "elsewhere")
	until("the folder is a link", link, "b b.yaml:1", "c c.yaml:1")
	w.Subject.Write(".b.yaml", Project("b", "web:2"))
	w.Subject.Remove("b.yaml")
	until("a file is hidden", link, hidden, "c c.yaml:1")
	if s := w.Source().Status.Snapshot; !s.Complete || len(s.Warnings) != 2 || s.ErrorCount != 0 {
		t.Errorf("head = %v", s)
	}
	w.Subject.Remove("apps")
	until("the link is removed", "a apps/a.yaml:1 absent", hidden, "c c.yaml:1")
	w.Subject.Remove(".b.yaml")
	until("the hidden file is removed", "a apps/a.yaml:1 absent", "b b.yaml:1 absent", "c c.yaml:1")
}

func unreadable(t *testing.T, w *Harness) {
	w.two()
	w.Subject.Write("binary.yaml", "\x7fELF\x02\x01\x01\x00\x00\x00\x00")
	w.Subject.Write("big.yaml", strings.Repeat("# padding\n", 210_000))
	w.Subject.Symlink("link.yaml", "/etc/passwd")
	w.Subject.Symlink("inside.yaml", "a.yaml")
	w.Subject.Publish()
	w.Hint()
	// A directory has no commit that groups the changes, so check the final state.
	w.Wait("four errors", func() bool { return w.Source().GetStatus().GetSnapshot().GetErrorCount() == 4 })
	published := w.Server.Publishes()
	p := published[len(published)-1]
	w.want(t, "a a.yaml:1", "b deep/b.yml:1")
	var files []string
	for _, f := range p.Head.FileErrors {
		files = append(files, f.File)
	}
	if want := []string{"big.yaml", "binary.yaml", "inside.yaml", "link.yaml"}; !slices.Equal(files, want) || p.Head.Complete {
		t.Errorf("errors = %v, want %v", p.Head.FileErrors, want)
	}
	if m := p.Head.FileErrors[0].Message; !strings.Contains(m, "1 MiB") || !strings.Contains(m, "limit of a manifest file") {
		t.Errorf("big: %s", m)
	}
	if m := p.Head.FileErrors[3].Message; m != "is a symbolic link, and links are not followed; put the file itself there, or exclude it" {
		t.Errorf("link: %s", m)
	}
}
