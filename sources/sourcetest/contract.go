package sourcetest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// contractTest is one test of the contract.
type contractTest struct {
	name string
	test func(t *testing.T, w *Harness)
}

// wire returns the tests in which it matters how a source is reached: what is asked of it, when, and what its absence does.
func wire() []contractTest {
	return []contractTest{
		{"declares projects", declares},
		{"nothing changed, nothing written", unchanged},
		{"one change, one claim", oneChange},
		{"a restart reads nothing again", restart},
		{"unreachable keeps what stands", unreachable},
		{"path missing", pathMissing},
		{"removed file", removed},
	}
}

// content returns the tests of what is made of a tree that was read.
func content() []contractTest {
	return []contractTest{
		{"renamed file, same project", renamed},
		{"one bad file among many", badFile},
		{"same project twice", declaredTwice},
		{"any error while reading", anyError},
		{"subtree and globs", globs},
		{"files that are no manifests", unreadable},
		{"a path that is not read is not gone", notRead},
		{"files of other tools", otherTools},
		{"only projects", onlyProjects},
		{"files that manifests use", usesFiles},
		{"files that manifests cannot use", badFiles},
		{"Compose files", composeFiles},
		{"suspend and resume", suspend},
		{"a request is answered", request},
		{"too many projects", tooMany},
	}
}

// Run runs the contract tests for one type of source. Each test gets a new, empty subject.
func Run(t *testing.T, subject func(t *testing.T) Subject) {
	runAll(t, append(wire(), content()...), subject)
}

// RunWire runs the part of the contract that depends on how a source is reached, for another way to a type of source that
// passes Run.
func RunWire(t *testing.T, subject func(t *testing.T) Subject) { runAll(t, wire(), subject) }

func runAll(t *testing.T, tests []contractTest, subject func(t *testing.T) Subject) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := New(t, subject(t))
			w.Start()
			tt.test(t, w)
		})
	}
}

func (w *Harness) want(t *testing.T, claims ...string) {
	t.Helper()
	if diff := cmp.Diff(claims, w.Claims()); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
}

// two publishes two files with one project each.
func (w *Harness) two() Publish {
	w.tb.Helper()
	w.Subject.Write("a.yaml", Project("a", "web:1"))
	w.Subject.Write("deep/b.yml", Project("b", "web:1"))
	w.Subject.Publish()
	w.Create()
	return w.Published(1)
}

func declares(t *testing.T, w *Harness) {
	w.Subject.Write("README.md", "# not a manifest\n")
	w.Subject.Write(".ci/workflow.yaml", "on: push\n")
	p := w.two()
	w.want(t, "a a.yaml:1", "b deep/b.yml:1")
	if !p.Head.Complete || p.Head.Files != 2 || p.Head.Projects != 2 || p.Head.Sequence != 1 || p.Head.Revision == "" {
		t.Errorf("head = %v", p.Head)
	}
	c := p.Upserts[0]
	if c.Hash != api.ClaimHash(c.Project) || c.Revision != p.Head.Revision || c.Source != Name || c.SourceUid != "uid-1" || c.FileHash == "" {
		t.Errorf("claim = %v", c)
	}
	w.Wait("poll", func() bool { return w.Server.Poll(Name).GetObservedRevision() == p.Head.Revision })
}

func unchanged(t *testing.T, w *Harness) {
	w.two()
	w.Looked()
	before := w.Server.Writes()
	for range 3 {
		w.Looked()
	}
	if n := w.Server.Writes() - before; n != 0 {
		t.Errorf("%d writes where nothing changed", n)
	}
	if len(w.Source().Status.Conditions) != 0 || len(w.Server.Events()) != 0 {
		t.Errorf("conditions %v, events %v where all is well", w.Source().Status.Conditions, w.Server.Events())
	}
}

func oneChange(t *testing.T, w *Harness) {
	first := w.two()
	w.Subject.Write("a.yaml", Project("a", "web:2"))
	p := w.push(2)
	if len(p.Upserts) != 1 || len(p.Absent) != 0 || p.Upserts[0].Project.Spec.Services[0].Image != "web:2" ||
		p.Upserts[0].Revision != p.Head.Revision || p.Head.Revision == first.Head.Revision {
		t.Errorf("published %v", p)
	}
}

func restart(t *testing.T, w *Harness) {
	w.two()
	w.Looked()
	before := w.Server.Writes()
	w.Stop()
	w.Start()
	polled := w.Server.Polled(Name)
	w.Wait("a poll after the restart", func() bool { return w.Server.Polled(Name) > polled })
	if n := w.Server.Writes() - before; n != 0 {
		t.Errorf("%d writes by a restart", n)
	}
	w.Subject.Write("c.yaml", Project("c", "web:1"))
	if p := w.push(2); len(p.Upserts) != 1 || p.Upserts[0].Project.Metadata.Name != "c" {
		t.Errorf("published after the restart: %v", p.Upserts)
	}
}

func renamed(t *testing.T, w *Harness) {
	first := w.two()
	w.Subject.Remove("a.yaml")
	w.Subject.Write("apps/a.yaml", Project("a", "web:1"))
	p := w.push(2)
	w.want(t, "a apps/a.yaml:1", "b deep/b.yml:1")
	if len(p.Upserts) != 1 || p.Upserts[0].Hash != first.Upserts[0].Hash || len(p.Absent) != 0 {
		t.Errorf("published %v", p)
	}
}

func badFile(t *testing.T, w *Harness) {
	w.two()
	w.Subject.Write("a.yaml", strings.Replace(Project("a", "web:2"), "image:", "imgae:", 1))
	w.Subject.Write("c.yaml", Project("c", "web:1"))
	p := w.push(2)
	if p.Head.Complete || p.Head.ErrorCount == 0 || p.Head.FileErrors[0].File != "a.yaml" || p.Head.FileErrors[0].Line != 8 {
		t.Errorf("head = %v", p.Head)
	}
	claims := w.Claims()
	if !strings.HasPrefix(claims[0], "a a.yaml:1 held: its file is broken: a.yaml:8:5: ") {
		t.Errorf("claims = %q", claims)
	}
	if diff := cmp.Diff([]string{"b deep/b.yml:1", "c c.yaml:1"}, claims[1:]); diff != "" {
		t.Error(diff)
	}
	if image := p.Upserts[0].Project.Spec.Services[0].Image; image != "web:1" {
		t.Errorf("held with %s, which is not the last good spec", image)
	}
	reason, message := w.Condition(api.CondInvalidManifests, api.StatusTrue)
	if reason != api.ReasonInvalidFiles || !strings.Contains(message, "in 1 file: a.yaml:8:5: spec.services[0].imgae") {
		t.Errorf("%s: %s", reason, message)
	}
	w.Subject.Write("a.yaml", Project("a", "web:2"))
	w.Subject.Publish()
	w.Hint()
	w.Condition(api.CondInvalidManifests, api.StatusFalse)
	w.want(t, "a a.yaml:1", "b deep/b.yml:1", "c c.yaml:1")
	w.Wait("events of both", func() bool { return len(w.Server.Events()) == 2 })
}

func declaredTwice(t *testing.T, w *Harness) {
	w.two()
	w.Subject.Write("c.yaml", Project("c", "web:1")+"---\n"+Project("a", "web:9"))
	p := w.push(2)
	w.want(t, "a a.yaml:1 held: declared twice: a.yaml:1 and c.yaml:10; keep one", "b deep/b.yml:1", "c c.yaml:1")
	if p.Head.Complete || p.Head.ErrorCount != 2 {
		t.Errorf("head = %v", p.Head)
	}
	const want = `project "a" is declared twice, also at a.yaml:1; neither is applied: keep one`
	if got := p.Head.FileErrors[1]; got.File != "c.yaml" || got.Line != 10 || got.Message != want {
		t.Errorf("error = %v", got)
	}
}

func unreachable(t *testing.T, w *Harness) {
	p := w.two()
	w.Subject.Break()
	w.Looked()
	reason, message := w.Condition(api.CondFetchFailed, api.StatusTrue)
	if reason == "" || !strings.HasSuffix(message, "(what was read at "+p.Head.Revision[:12]+" stays in force)") {
		t.Errorf("%s: %s", reason, message)
	}
	w.want(t, "a a.yaml:1", "b deep/b.yml:1")
	w.Subject.Mend()
	w.Hint()
	w.Condition(api.CondFetchFailed, api.StatusFalse)
	if n := len(w.Server.Publishes()); n != 1 {
		t.Errorf("%d snapshots", n)
	}
	w.Wait("both events", func() bool {
		e := w.Server.Events()
		return len(e) == 2 && e[0].Reason == "FetchFailed" && e[1].Reason == api.ReasonFetchRecovered
	})
}

func pathMissing(t *testing.T, w *Harness) {
	w.Subject.Write("a.yaml", Project("a", "web:1"))
	w.Subject.Publish()
	w.Create(func(s *carav1.SourceSpec) { s.Path = "deploy" })
	reason, message := w.Condition(api.CondFetchFailed, api.StatusTrue)
	if reason != api.ReasonPathNotFound || !strings.HasPrefix(message, `path "deploy" does not exist in `) {
		t.Errorf("%s: %s", reason, message)
	}
	if len(w.Server.Publishes()) != 0 {
		t.Error("an error was published as a snapshot")
	}
}

func globs(t *testing.T, w *Harness) {
	for _, f := range []string{"deploy/a.yaml", "deploy/x/b.yaml", "deploy/x/draft/c.yaml", "deploy/d.json.yaml", "other/e.yaml"} {
		name := f[strings.LastIndexByte(f, '/')+1:][:1]
		w.Subject.Write(f, Project(name, "web:1"))
	}
	w.Subject.Publish()
	w.Create(func(s *carav1.SourceSpec) {
		s.Path, s.Include, s.Exclude = "/deploy/", []string{"**/*.yaml"}, []string{"**/draft/**", "d*"}
	})
	w.Published(1)
	w.want(t, "a deploy/a.yaml:1", "b deploy/x/b.yaml:1")
}

func removed(t *testing.T, w *Harness) {
	w.two()
	w.Subject.Remove("a.yaml")
	p := w.push(2)
	w.want(t, "a a.yaml:1 absent", "b deep/b.yml:1")
	if !p.Head.Complete || len(p.Upserts) != 0 {
		t.Errorf("published %v", p)
	}
	w.Subject.Write("a.yaml", Project("a", "web:1"))
	w.push(3)
	w.want(t, "a a.yaml:1", "b deep/b.yml:1")
}

func suspend(t *testing.T, w *Harness) {
	w.two()
	w.Looked()
	w.Change(func(s *carav1.Source) { s.Spec.Suspend = true })
	w.Subject.Write("c.yaml", Project("c", "web:1"))
	w.Subject.Publish()
	w.Hint()
	w.Hint()
	if n := len(w.Server.Publishes()); n != 1 {
		t.Errorf("%d snapshots of a suspended source", n)
	}
	w.Change(func(s *carav1.Source) { s.Spec.Suspend = false })
	w.Published(2)
	w.want(t, "a a.yaml:1", "b deep/b.yml:1", "c c.yaml:1")
}

func request(t *testing.T, w *Harness) {
	p := w.two()
	w.Change(func(s *carav1.Source) { s.Status.RequestedToken = "t1" })
	again := w.Published(2)
	if again.Head.Token != "t1" || again.Head.Revision != p.Head.Revision || len(again.Upserts)+len(again.Absent) != 0 {
		t.Errorf("answer = %v", again)
	}
	w.Subject.Break()
	w.Change(func(s *carav1.Source) { s.Status.RequestedToken = "t2" })
	w.Wait("an answer though the fetch fails", func() bool { return w.Source().Status.HandledToken == "t2" })
	w.Condition(api.CondFetchFailed, api.StatusTrue)
	w.Subject.Mend()
}

func tooMany(t *testing.T, w *Harness) {
	w.Subject.Write("a.yaml", Project("a", "web:1")+"---\n"+Project("b", "web:1"))
	w.Subject.Publish()
	w.Create(func(s *carav1.SourceSpec) { s.MaxProjects = 1 })
	reason, message := w.Condition(api.CondFetchFailed, api.StatusTrue)
	if reason != api.ReasonTooLarge || !strings.HasPrefix(message, "2 projects are declared and spec.maxProjects is 1") {
		t.Errorf("%s: %s", reason, message)
	}
	w.Change(func(s *carav1.Source) { s.Spec.MaxProjects = 0 })
	w.Published(1)
}
