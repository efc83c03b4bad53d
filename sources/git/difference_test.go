package git_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/fakecluster"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/git"
	"github.com/caravanserai/cara/sources/sourcetest"
)

// counted is an opener whose drivers count how trees are read. If whole is true, they read no differences.
type counted struct {
	sources.Opener
	whole        bool
	trees, diffs atomic.Int32
}

type countedDriver struct {
	sources.Driver
	by *counted
}

type differDriver struct{ countedDriver }

func (c *counted) Open(spec *carav1.SourceSpec, secret map[string][]byte) (sources.Driver, error) {
	d, err := c.Opener.Open(spec, secret)
	if err != nil {
		return nil, err
	}
	if c.whole {
		return countedDriver{d, c}, nil
	}
	return differDriver{countedDriver{d, c}}, nil
}

func (d countedDriver) Tree(ctx context.Context, revision string) (*sources.Tree, error) {
	d.by.trees.Add(1)
	return d.Driver.Tree(ctx, revision)
}

func (d differDriver) Diff(ctx context.Context, base, revision string) (*sources.Diff, error) {
	diff, err := d.Driver.(sources.Differ).Diff(ctx, base, revision)
	if err == nil {
		d.by.diffs.Add(1)
	}
	return diff, err
}

// watched is a subject that is read with an opener.
type watched struct {
	*repository
	opener *counted
}

func (w watched) Opener() sources.Opener { return w.opener }

// twins are two clusters with the same source: one reads differences, the other reads every tree whole.
type twins struct {
	repo        *repository
	diff, whole *counted
	both        []*sourcetest.Harness
}

// bulk adds a file so large that the repository's commits are read by differences.
func bulk(repo *repository) {
	data := make([]byte, 100<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data) // it never fails
	repo.Write("data.bin", string(data))
}

func newTwins(t *testing.T, repo *repository, change func(*carav1.SourceSpec)) *twins {
	tw := &twins{repo: repo, diff: &counted{Opener: git.New(config())}, whole: &counted{Opener: git.New(config()), whole: true}}
	for _, opener := range []*counted{tw.diff, tw.whole} {
		w := sourcetest.New(t, watched{repo, opener})
		w.Start()
		w.Create(change)
		tw.both = append(tw.both, w)
	}
	return tw
}

// same waits until both have read a commit, and compares what they declare.
func (tw *twins) same(t *testing.T, commit, what string) {
	t.Helper()
	var heads []*carav1.Snapshot
	var claims [][]*carav1.Claim
	for _, w := range tw.both {
		w.Ask()
		token := w.Source().GetStatus().GetRequestedToken()
		w.Wait("the snapshot of "+commit, func() bool {
			head := w.Source().GetStatus().GetSnapshot()
			return head.GetRevision() == commit && head.GetToken() == token
		})
		heads = append(heads, w.Source().GetStatus().GetSnapshot())
		claims = append(claims, fakecluster.All[*carav1.Claim](w.Server.Cluster))
	}
	if d := cmp.Diff(heads[1], heads[0], protocmp.Transform(), protocmp.IgnoreFields(&carav1.Snapshot{}, "sequence")); d != "" {
		t.Fatalf("after %s, the heads differ (- whole, + difference):\n%s", what, d)
	}
	if d := cmp.Diff(claims[1], claims[0], protocmp.Transform(), protocmp.IgnoreFields(&carav1.ObjectMeta{}, "resource_version")); d != "" {
		t.Fatalf("after %s, the claims differ (- whole, + difference):\n%s", what, d)
	}
}

// edits changes files at random.
type edits struct {
	*rand.Rand
	repo    *repository
	files   map[string]string
	images  int
	wrong   []string // files that may be what makes a difference unreadable; most are removed soon
	commits []string
}

func (e *edits) write(path, content string) {
	e.clear(path)
	e.files[path] = content
	e.repo.Write(path, content)
}

// clear removes what is in the way of a path.
func (e *edits) clear(path string) {
	for other := range e.files {
		if strings.HasPrefix(other, path+"/") || strings.HasPrefix(path, other+"/") {
			e.remove(other)
		}
	}
}

func (e *edits) remove(path string) {
	delete(e.files, path)
	e.repo.Remove(path)
}

func (e *edits) any() string {
	paths := slices.Sorted(maps.Keys(e.files))
	if len(paths) == 0 {
		return "none.yaml"
	}
	return paths[e.IntN(len(paths))]
}

func (e *edits) path() string {
	dirs := []string{"", "a/", "a/b/", "a/b.yaml/", ".hidden/", "out/", "c/"}
	return fmt.Sprintf("%s%c%s", dirs[e.IntN(len(dirs))], 'k'+rune(e.IntN(6)), []string{".yaml", ".yaml", ".yml", ".txt"}[e.IntN(4)])
}

// project returns a manifest, rarely of a name that another file declares.
func (e *edits) project() string {
	e.images++
	all := strings.Join(slices.Collect(maps.Values(e.files)), "")
	name := fmt.Sprintf("p%d", e.IntN(25))
	for e.IntN(10) > 0 && strings.Contains(all, "name: "+name+"\n") {
		name = fmt.Sprintf("p%d", e.IntN(100))
	}
	return sourcetest.Project(name, fmt.Sprintf("web:%d", e.images))
}

// mistake writes a file that is likely to be a problem.
func (e *edits) mistake(path, content string) {
	e.write(path, content)
	e.wrong = append(e.wrong, path)
}

// one makes one edit and describes it.
func (e *edits) one() string {
	path, other := e.any(), e.path()
	content, ok := e.files[path]
	switch n := e.IntN(20); {
	case n < 6 && ok:
		e.images++
		e.write(path, strings.Replace(content, "image: web:", fmt.Sprintf("image: web:%d", e.images), 1))
		return "changing " + path
	case n < 9:
		e.write(other, e.project())
		return "writing " + other
	case n < 11:
		e.write(other, e.project()+"---\n"+e.project())
		return "writing two projects to " + other
	case n < 13 && ok:
		e.remove(path)
		return "removing " + path
	case n < 15 && ok:
		e.remove(path)
		e.write(other, content)
		return "moving " + path + " to " + other
	case n == 15 && ok:
		e.mistake(other, content)
		return "copying " + path + " to " + other
	case n == 16:
		e.mistake(other, "kind: Project\n")
		return "breaking " + other
	case n == 17:
		e.write("package.json", fmt.Sprintf(`{"name": "x", "version": "%d"}`, e.images))
		return "writing package.json"
	case n == 18:
		e.write(other, "# nothing\n")
		return "emptying " + other
	}
	link := "links/" + fmt.Sprint(e.IntN(3)) + []string{"", "", ".yaml"}[e.IntN(3)]
	if strings.HasSuffix(link, ".yaml") {
		e.wrong = append(e.wrong, link)
	}
	e.clear(link)
	e.repo.Symlink(link, "../a")
	e.files[link] = ""
	return "linking " + link
}

// commit commits some edits, or goes back to an earlier commit.
func (e *edits) commit(t *testing.T) (commit, what string) {
	if len(e.commits) > 3 && e.IntN(12) == 0 {
		back := e.commits[len(e.commits)-1-e.IntN(3)]
		e.repo.Reset(back)
		e.read(t)
		return back, "going back"
	}
	var all []string
	if len(e.wrong) > 0 && e.IntN(3) > 0 {
		for _, path := range e.wrong {
			if _, ok := e.files[path]; ok {
				e.remove(path)
			}
		}
		e.wrong, all = nil, []string{"mending"}
	}
	for range 1 + e.IntN(3) {
		all = append(all, e.one())
	}
	commit = e.repo.Commit(strings.Join(all, ", "))
	e.commits = append(e.commits, commit)
	return commit, strings.Join(all, ", ")
}

// read forgets what is not in the work tree any more.
func (e *edits) read(t *testing.T) {
	list, err := e.repo.Git(t.Context(), "ls-files")
	if err != nil {
		list = ""
	}
	have := strings.Fields(list)
	maps.DeleteFunc(e.files, func(path, _ string) bool { return !slices.Contains(have, path) })
	for _, path := range have {
		if _, ok := e.files[path]; !ok {
			content, _ := e.repo.Git(t.Context(), "show", "HEAD:"+path)
			e.files[path] = content + "\n"
		}
	}
}

// A source that reads differences declares the same as one that reads every tree whole, whatever changes.
func TestDifferenceIsAsTheWhole(t *testing.T) {
	for name, subject := range map[string]func(testing.TB) *repository{"http": overHTTP, "local path": local} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				t.Parallel()
				compareEdits(t, subject(t), seed, 20)
			})
		}
	}
}

// Each step is one commit. After some of them the difference alone does not say what the source declares.
func TestDifferenceStepByStep(t *testing.T) {
	repo := overHTTP(t)
	one := func(name, image string) string { return sourcetest.Project(name, image) }
	for i := range 10 {
		repo.Write(fmt.Sprintf("base/%d.yaml", i), one(fmt.Sprintf("base%d", i), "web:1"))
	}
	repo.Write("moved/a.yaml", one("moved", "web:1"))
	repo.Write("linked/a.yaml", one("linked", "web:1"))
	repo.Write(".github/workflow.yaml", "on: push\n")
	bulk(repo)
	commit := repo.Commit("first")
	repo.Push()
	tw := newTwins(t, repo, func(*carav1.SourceSpec) {})
	tw.same(t, commit, "the first commit")
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"a change", func() { repo.Write("base/1.yaml", one("base1", "web:2")) }},
		{"a second declaration", func() { repo.Write("twice.yaml", one("base2", "web:3")) }},
		{"its removal", func() { repo.Remove("twice.yaml") }},
		{"a change again", func() { repo.Write("base/1.yaml", one("base1", "web:3")) }},
		{"a removal", func() { repo.Remove("base/3.yaml") }},
		{"a link in place of a folder", func() { repo.Remove("linked/a.yaml"); repo.Symlink("linked", "base") }},
		{"a file that is hidden", func() { repo.Remove("moved/a.yaml"); repo.Write(".moved/a.yaml", one("moved", "web:1")) }},
		{"the link is removed", func() { repo.Remove("linked") }},
		{"a change beside a hidden project", func() { repo.Write("base/1.yaml", one("base1", "web:4")) }},
		{"the hidden file is removed", func() { repo.Remove(".moved/a.yaml") }},
		{"a link named like a manifest", func() { repo.Symlink("base/link.yaml", "1.yaml") }},
		{"its removal", func() { repo.Remove("base/link.yaml") }},
		{"a folder in place of a file", func() { repo.Remove("base/4.yaml"); repo.Write("base/4.yaml/4.yaml", one("base4", "web:2")) }},
		{"a file in place of a folder", func() { repo.Remove("base/4.yaml"); repo.Write("base/4.yaml", one("base4", "web:3")) }},
		{"the same content at another path", func() { repo.Remove("base/5.yaml"); repo.Write("new/5.yml", one("base5", "web:1")) }},
		{"a project that comes back", func() { repo.Write("base/3.yaml", one("base3", "web:1")) }},
		{"two projects that swap their files", func() {
			repo.Write("base/6.yaml", one("base7", "web:1"))
			repo.Write("base/7.yaml", one("base6", "web:1"))
		}},
	} {
		step.do()
		commit := repo.Commit(step.what)
		repo.Push()
		tw.same(t, commit, step.what)
	}
	t.Logf("%d differences, and %d whole trees instead of %d", tw.diff.diffs.Load(), tw.diff.trees.Load(), tw.whole.trees.Load())
}

func compareEdits(t *testing.T, repo *repository, seed uint64, commits int) {
	e := &edits{Rand: rand.New(rand.NewPCG(seed, 1)), repo: repo, files: map[string]string{}}
	for i := range 10 {
		e.write(fmt.Sprintf("base/%d.yaml", i), sourcetest.Project(fmt.Sprintf("base%d", i), "web:1"))
	}
	bulk(repo)
	commit := repo.Commit("first")
	repo.Push()
	tw := newTwins(t, repo, func(s *carav1.SourceSpec) { s.Exclude = []string{"out/**"} })
	tw.same(t, commit, "the first commit")
	for i := range commits {
		commit, what := e.commit(t)
		repo.ForcePush()
		tw.same(t, commit, fmt.Sprintf("commit %d (%s)", i, what))
		if i == commits/2 {
			for _, w := range tw.both {
				w.Change(func(s *carav1.Source) { s.Spec.Exclude = []string{"c/**"} })
			}
		}
	}
	t.Logf("%d differences, and %d whole trees instead of %d", tw.diff.diffs.Load(), tw.diff.trees.Load(), tw.whole.trees.Load())
	if diffs := tw.diff.diffs.Load(); diffs == 0 || tw.whole.diffs.Load() > 0 || tw.diff.trees.Load() >= tw.whole.trees.Load() {
		t.Errorf("%d differences, and %d whole trees instead of %d", diffs, tw.diff.trees.Load(), tw.whole.trees.Load())
	}
}
