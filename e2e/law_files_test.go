package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A row: one bad file among many.
func TestLawOneBadFileAmongMany(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:1", "a", "b", "c"))
	w.claim("platform", "c", "Applied")
	o.Write("a.yaml", declared("a", "web:1")+"  - bad\n  indent")
	o.Write("b.yaml", declared("b", "web:2"))
	o.Remove("c.yaml")
	bad := o.save("Break a, change b, drop c")
	w.asks("b", "web:2")
	s := w.untilSource("platform", "has invalid manifests", func(s *carav1.Source) bool {
		return api.IsTrue(s.GetStatus().GetConditions(), api.CondInvalidManifests) &&
			api.IsTrue(s.GetStatus().GetConditions(), api.CondPruneBlocked)
	})
	problems := s.GetStatus().GetSnapshot().GetFileErrors()
	if len(problems) == 0 || problems[0].GetFile() != "a.yaml" || problems[0].GetLine() == 0 || problems[0].GetColumn() == 0 {
		t.Fatalf("problems %v, want one at a line and column of a.yaml", problems)
	}
	at := fmt.Sprintf("a.yaml:%d:%d: ", problems[0].GetLine(), problems[0].GetColumn())
	invalid := condition(s.GetStatus().GetConditions(), api.CondInvalidManifests)
	w.says("the condition", invalid.GetMessage(), "1 error in 1 file: "+at)
	w.event(api.KindSource, "platform", "InvalidManifests", invalid.GetMessage())
	w.suffers("platform", api.CondPruneBlocked, "Blocked", fmt.Sprintf("1 error in the files at %s, the first in a.yaml:%d: %s; kept: c",
		bad[:7], problems[0].GetLine(), problems[0].GetMessage()))
	w.says("the claim", w.claim("platform", "a", "Held").GetSpec().GetHeld(), "its file is broken: "+at)
	w.asks("a", "web:1")
	w.stay("a", "b", "c")
	w.says("caractrl describe", w.ctl("", "describe", "source", "platform").Stdout, at, "Held", "PruneBlocked")

	o.Write("a.yaml", declared("a", "web:3"))
	o.save("Mend a")
	w.asks("a", "web:3")
	w.gone("c")
	w.well("platform", api.CondInvalidManifests)
	w.stay("a", "b")
}

// A row: a path that is not read is not gone, and files of other tools are no errors.
func TestLawAPathThatIsNotRead(t *testing.T) {
	w := law(t)
	o := w.origin("platform", map[string]string{
		"apps/a.yaml": declared("a", "web:1"), "b.yaml": declared("b", "web:1"), "c.yaml": declared("c", "web:1"),
		"package.json": `{"name": "shop"}`, "docker-compose.yml": "services: {web: {image: nginx}}",
	})
	w.claim("platform", "c", "Applied")
	w.well("platform", api.CondInvalidManifests)
	w.says("caractrl describe", w.ctl("", "describe", "source", "platform").Stdout, "package.json", "looks like a Compose file")
	o.Remove("apps/a.yaml")
	o.Remove("apps")
	o.Symlink("apps", "elsewhere")
	o.Remove("b.yaml")
	o.save("Link the apps, drop b")
	const why = "what is not read is not gone: a (apps/a.yaml:1): apps is a symbolic link, and links are not followed; remove the path, or put it back"
	w.suffers("platform", api.CondPruneBlocked, "Blocked", why+"; kept: b")
	w.claim("platform", "a", "Held")
	w.stay("a", "b", "c")
	o.Remove("apps")
	o.save("Remove the link")
	w.gone("a")
	w.gone("b")
	w.well("platform", api.CondPruneBlocked)
	w.stay("c")
}

// A row: several people ask to reconcile at once.
func TestLawSeveralAskAtOnce(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:1", "a"))
	w.claim("platform", "a", "Applied")
	o.Write("a.yaml", declared("a", "web:2"))
	o.save("Change a")
	var all sync.WaitGroup
	results := make([]string, 5)
	for i := range results {
		all.Go(func() { results[i] = w.ctl("", "reconcile", "platform", "--timeout", "50s").Stdout })
	}
	all.Wait()
	for i, out := range results {
		if !strings.HasPrefix(out, "source/platform is at ") {
			t.Errorf("reconcile %d: %q", i, out)
		}
	}
	w.asks("a", "web:2")
}

// A row: the server refuses one project.
func TestLawTheServerRefusesOneProject(t *testing.T) {
	w := law(t)
	ingress := "ingress:\n- name: web\n  host: shop.example.com\n  target: {service: web, port: 80}"
	o := w.origin("platform", map[string]string{"a.yaml": declared("a", "web:1", ingress)})
	w.claim("platform", "a", "Applied")
	o.Write("b.yaml", declared("b", "web:1", ingress))
	o.Write("c.yaml", declared("c", "web:1"))
	o.save("Two hosts of one name")
	w.asks("c", "web:1")
	refused := w.claim("platform", "b", "Refused").GetStatus().GetMessage()
	w.says("the claim of b", refused, "shop.example.com", `"a"`)
	w.untilSource("platform", "says what was refused", func(s *carav1.Source) bool {
		c := condition(s.GetStatus().GetConditions(), api.CondReady)
		return c.GetStatus() == api.StatusFalse && c.GetReason() == "Refused" && c.GetMessage() == "b: "+refused
	})
	w.stay("a", "c")
	w.says("caractrl describe", w.ctl("", "describe", "source", "platform").Stdout, "Refused", "shop.example.com")
	o.Write("b.yaml", declared("b", "web:1"))
	o.save("Another host")
	w.claim("platform", "b", "Applied")
	w.well("platform", api.CondConflict)
}

// A row: same project twice in one source.
func TestLawSameProjectTwiceInOneSource(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:1", "a", "b"))
	w.claim("platform", "a", "Applied")
	o.Write("copy/a.yaml", declared("a", "web:2"))
	o.Write("new/x.yaml", declared("x", "web:1")+"---\n"+declared("x", "web:2"))
	o.Write("b.yaml", declared("b", "web:2"))
	o.save("Copy a, and x twice")
	w.asks("b", "web:2")
	if got := w.claim("platform", "a", "Held").GetSpec().GetHeld(); got != "declared twice: a.yaml:1 and copy/a.yaml:1; keep one" {
		t.Errorf("held: %s", got)
	}
	s := w.untilSource("platform", "has invalid manifests", func(s *carav1.Source) bool {
		return api.IsTrue(s.GetStatus().GetConditions(), api.CondInvalidManifests)
	})
	w.says("the condition", condition(s.GetStatus().GetConditions(), api.CondInvalidManifests).GetMessage(),
		`a.yaml:1:1: metadata.name: project "a" is declared twice, also at copy/a.yaml:1; neither is applied: keep one`,
		`copy/a.yaml:1:1: metadata.name: project "a" is declared twice, also at a.yaml:1; neither is applied: keep one`)
	w.asks("a", "web:1")
	w.stay("a", "b")
	o.Remove("copy/a.yaml")
	o.Write("new/x.yaml", declared("x", "web:1"))
	o.save("Keep one of each")
	w.asks("x", "web:1")
	w.well("platform", api.CondInvalidManifests)
	w.stay("a", "b", "x")
}

// Rows: renamed or moved file, same project; renamed project.
func TestLawRenamedOrMovedFile(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:1", "a"))
	w.claim("platform", "a", "Applied")
	before := w.asks("a", "web:1")
	o.Remove("a.yaml")
	o.Write("deep/down/moved.yml", "# a comment\n"+declared("a", "web:1"))
	o.save("Move a")
	w.untilSource("platform", "is Ready", func(s *carav1.Source) bool { return api.IsTrue(s.GetStatus().GetConditions(), api.CondReady) })
	w.quiet("platform")
	if after := w.asks("a", "web:1"); after.GetMetadata().GetResourceVersion() != before.GetMetadata().GetResourceVersion() {
		t.Errorf("the project was written: %v, before %v", after.GetMetadata(), before.GetMetadata())
	}
	if c := w.claim("platform", "a", "Applied"); c.GetSpec().GetFile() != "deep/down/moved.yml" {
		t.Errorf("the claim is in %s", c.GetSpec().GetFile())
	}
}

func TestLawRenamedProject(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:1", "old", "other"))
	w.claim("platform", "old", "Applied")
	declaredAt := o.head()[:7]
	o.Write("old.yaml", declared("new", "web:1"))
	o.save("Rename")
	w.asks("new", "web:1")
	w.gone("old")
	w.event(api.KindProject, "old", "Removed", fmt.Sprintf(
		"its manifest left the source: source/platform, old.yaml at %s (system/reconciler); it had no node", declaredAt))
	w.stay("new", "other")
}

// A row: nothing changed.
func TestLawNothingChanged(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:1", "a", "b"))
	w.claim("platform", "b", "Applied")
	w.nothingWritten("platform")
	before := w.asks("a", "web:1")
	o.Write("b.yaml", declared("b", "web:2"))
	o.Write("README.md", "no manifest")
	o.save("Change b alone")
	w.asks("b", "web:2")
	if after := w.asks("a", "web:1"); after.GetMetadata().GetResourceVersion() != before.GetMetadata().GetResourceVersion() ||
		after.GetMetadata().GetOrigin().GetRevision() != before.GetMetadata().GetOrigin().GetRevision() {
		t.Errorf("a commit that says nothing of a wrote it: %v, before %v", after.GetMetadata(), before.GetMetadata())
	}
	w.nothingWritten("platform")
	w.crash()
	w.start()
	w.nothingWritten("platform")
}

// A row: many commits while busy.
func TestLawManyCommitsWhileBusy(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:0", "a"))
	for i := range 20 {
		o.Write("a.yaml", declared("a", fmt.Sprintf("web:%d", i+1)))
		if i == 10 {
			o.Write("a.yaml", "neither yaml: [nor")
		}
		o.Commit(fmt.Sprintf("Change %d", i+1))
		o.Push()
	}
	o.pushed()
	w.asks("a", "web:20")
	w.well("platform", api.CondInvalidManifests)
	w.stay("a")
}

// A row: force-push, history rewrite.
func TestLawForcePush(t *testing.T) {
	w := law(t)
	o := w.origin("platform", only("web:1", "a", "b"))
	w.claim("platform", "b", "Applied")
	before := w.asks("a", "web:1")
	_, err := o.Git(t.Context(), "checkout", "--quiet", "--orphan", "fresh")
	w.must(err)
	o.Write("c.yaml", declared("c", "web:1"))
	o.Remove("b.yaml")
	o.Commit("A history with nothing in common")
	_, err = o.Git(t.Context(), "branch", "-M", "main")
	w.must(err)
	o.ForcePush()
	o.pushed()
	w.asks("c", "web:1")
	w.gone("b")
	if after := w.asks("a", "web:1"); after.GetMetadata().GetResourceVersion() != before.GetMetadata().GetResourceVersion() {
		t.Errorf("a was written: %v, before %v", after.GetMetadata(), before.GetMetadata())
	}
	w.stay("a", "c")
}

// A row: half-written file in a watched directory.
func TestLawHalfWrittenFileInAWatchedDirectory(t *testing.T) {
	w := law(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "a.yaml")
	whole := declared("a", "web:1")
	w.write(file, whole)
	w.write(filepath.Join(dir, "b.yaml"), declared("b", "web:1"))
	w.directory("local", dir)
	w.claim("local", "a", "Applied")
	w.claim("local", "b", "Applied")
	for i := range 5 { // as an editor that truncates and writes in parts
		next := strings.Replace(whole, "web:1", fmt.Sprintf("web:%d", i+2), 1)
		w.write(file, "")
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
		w.must(err)
		for part := range strings.Lines(next) {
			_, err := f.WriteString(part)
			w.must(err)
			w.poll("local") // a little time passes
		}
		w.must(f.Close())
		w.asks("a", fmt.Sprintf("web:%d", i+2))
	}
	w.stay("a", "b")
	events := w.ctl("", "get", "events").Stdout
	if strings.Contains(events, "InvalidManifests") || strings.Contains(events, "Removed") {
		t.Errorf("a half-written file was reported:\n%s", events)
	}
	w.write(file, "kind: Project\nmetadata: {name: a, nmae: a}\n")
	w.untilSource("local", "reports an error that stays", func(s *carav1.Source) bool {
		return api.IsTrue(s.GetStatus().GetConditions(), api.CondInvalidManifests)
	})
	w.stay("a", "b")
}
