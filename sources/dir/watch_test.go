package dir_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/dir"
	"github.com/caravanserai/cara/sources/sourcetest"
)

// watched is a driver whose hints are counted.
type watched struct {
	*folder
	live sources.Live
	told chan struct{}
}

func watch(t *testing.T, f *folder, cfg dir.Config) *watched {
	t.Helper()
	d, err := dir.New(cfg).Open(f.Spec(), nil)
	f.must(err)
	w := &watched{f, d.(sources.Live), make(chan struct{}, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.live.Watch(ctx, func() { w.told <- struct{}{} }) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

// settle scans until no hint comes for a while: every folder is watched then.
func (w *watched) settle() string {
	w.tb.Helper()
	for {
		rev, err := w.live.Probe(w.tb.Context(), 0)
		w.must(err)
		select {
		case <-w.told:
		case <-time.After(400 * time.Millisecond):
			return rev
		}
	}
}

// hint waits for a hint.
func (w *watched) hint(what string) {
	w.tb.Helper()
	select {
	case <-w.told:
	case <-time.After(60 * time.Second):
		w.tb.Fatalf("no hint after %s", what)
	}
}

func TestHints(t *testing.T) {
	tests := map[string]struct {
		do      func(f *folder)
		changes bool // the revision too
	}{
		"vim": {func(f *folder) {
			f.Write("apps/4913", "")
			f.Remove("apps/4913")
			f.Rename("apps/a.yaml", "apps/a.yaml~")
			f.Write("apps/a.yaml", "new")
			f.Remove("apps/a.yaml~")
		}, true},
		"emacs": {func(f *folder) {
			f.Symlink("apps/.#a.yaml", "me@host.1")
			f.Write("apps/#a.yaml#", "half")
			f.Rename("apps/a.yaml", "apps/a.yaml~")
			f.Write("apps/a.yaml", "new")
			f.Remove("apps/.#a.yaml")
			f.Remove("apps/#a.yaml#")
		}, true},
		"VS Code":          {func(f *folder) { f.Write("apps/a.yaml", "new") }, true},
		"write and rename": {func(f *folder) { f.Write("apps/.tmp123", "new"); f.Rename("apps/.tmp123", "apps/a.yaml") }, true},
		"a new folder":     {func(f *folder) { f.Write("x/y/z/c.yaml", "c") }, true},
		"a folder moved in": {func(f *folder) {
			f.must(os.MkdirAll(f.root+".new/deep", 0o755))
			f.must(os.WriteFile(f.root+".new/deep/n.yaml", []byte("n"), 0o644))
			f.must(os.Rename(f.root+".new", filepath.Join(f.root, "moved")))
		}, true},
		"removed":   {func(f *folder) { f.Remove("apps/a.yaml") }, true},
		"rewritten": {func(f *folder) { f.Write("apps/a.yaml", "a") }, false},
		"rm -rf and mkdir": {func(f *folder) {
			f.must(os.RemoveAll(f.root))
			f.must(os.Mkdir(f.root, 0o755))
			f.Write("apps/a.yaml", "new")
		}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFolder(t)
			f.Write("apps/a.yaml", "a")
			w := watch(t, f, dir.Config{})
			before := w.settle()
			tt.do(f)
			w.hint(name)
			after := w.settle()
			if (before != after) != tt.changes {
				t.Errorf("revision before %.7s, after %.7s", before, after)
			}
			f.Write("last.yaml", "still watched")
			w.hint("one more change")
		})
	}
}

// TestBurst: real changes are collected, too. TestListenToABurst checks how long a report waits while they go on: on a busy machine, the
// changes here have pauses, and the watcher may report after each pause.
func TestBurst(t *testing.T) {
	f := newFolder(t)
	f.Write("a.yaml", "0")
	w := watch(t, f, dir.Config{})
	w.settle()
	began := time.Now()
	for i := range 3_000 {
		f.Write("a.yaml", fmt.Sprint(i))
	}
	w.hint("a burst")
	hints := 1
	for quiet := false; !quiet; {
		select {
		case <-w.told:
			hints++
		case <-time.After(500 * time.Millisecond):
			quiet = true
		}
	}
	const apart = 150 * time.Millisecond // two reports, at least
	if took := time.Since(began); hints > 1+int(took/apart) {
		t.Errorf("%d hints in %s", hints, took)
	}
}

func (f *folder) Rename(from, to string) {
	f.must(os.Rename(filepath.Join(f.root, from), filepath.Join(f.root, to)))
}

func TestHalfWrittenFileIsNotReported(t *testing.T) {
	f := newFolder(t)
	w := sourcetest.New(t, f)
	w.Start()
	whole := sourcetest.Project("a", "web:1")
	f.Write("a.yaml", whole)
	w.Create()
	w.Published(1)
	stalled := false
	for i := range 5 { // an editor that truncates, writes half, then the rest
		began := time.Now()
		f.Write("a.yaml", "")
		w.Hint()
		f.Write("a.yaml", whole[:60])
		w.Hint()
		f.Write("a.yaml", sourcetest.Project("a", fmt.Sprintf("web:%d", i+2)))
		stalled = stalled || time.Since(began) > 250*time.Millisecond
		w.Wait("the whole file", func() bool {
			p := w.Server.Publishes()
			last := p[len(p)-1]
			return len(last.Upserts) == 1 && last.Upserts[0].Project.Spec.Services[0].Image == fmt.Sprintf("web:%d", i+2)
		})
	}
	if stalled {
		t.Skip("the machine was so busy that the half-written file has looked like a whole one; TestDoubtful needs no clock")
	}
	for _, p := range w.Server.Publishes() {
		if !p.Head.Complete || len(p.Absent) > 0 {
			t.Errorf("a half-written file was published: %v, absent %v", p.Head, p.Absent)
		}
	}
	if len(w.Server.Events()) > 0 {
		t.Errorf("events: %v", w.Server.Events())
	}
}

func TestErrorThatStaysIsReported(t *testing.T) {
	f := newFolder(t)
	w := sourcetest.New(t, f)
	w.Start()
	f.Write("a.yaml", sourcetest.Project("a", "web:1"))
	w.Create()
	w.Published(1)
	f.Write("a.yaml", "kind: Project\n\tx")
	w.Condition(api.CondInvalidManifests, api.StatusTrue)
}

func TestKubernetesVolumeSwap(t *testing.T) {
	f := newFolder(t)
	f.Write("..2026_01/a.yaml", sourcetest.Project("a", "web:1"))
	f.Symlink("..data", "..2026_01")
	f.Symlink("a.yaml", "..data/a.yaml")
	f.Symlink("evil.yaml", "..data/../../../../../etc/passwd")
	w := sourcetest.New(t, f)
	w.Start()
	w.Create()
	p := w.Published(1)
	if len(p.Upserts) != 1 || len(p.Head.FileErrors) != 1 || p.Head.FileErrors[0].File != "evil.yaml" {
		t.Fatalf("published %v", p)
	}
	f.Write("..2026_02/a.yaml", sourcetest.Project("a", "web:2"))
	f.Symlink("..data_tmp", "..2026_02")
	f.Rename("..data_tmp", "..data")
	p = w.Published(2)
	if image := p.Upserts[0].Project.Spec.Services[0].Image; image != "web:2" {
		t.Errorf("image = %s", image)
	}
}

func TestLinksOutOfTheTree(t *testing.T) {
	f := newFolder(t)
	f.must(os.WriteFile(f.root+".secret.yaml", []byte(sourcetest.Project("evil", "web:1")), 0o644))
	f.Symlink("..data", "..")
	f.Symlink("a.yaml", "..data/"+filepath.Base(f.root)+".secret.yaml")
	d, err := f.Opener().Open(f.Spec(), nil)
	f.must(err)
	rev, err := d.Probe(t.Context(), 0)
	f.must(err)
	tree, err := d.Tree(t.Context(), rev)
	f.must(err)
	if len(tree.Files) != 0 || len(tree.Problems) != 1 {
		t.Errorf("files %v, problems %v", tree.Files, tree.Problems)
	}
}

func TestWatchRefused(t *testing.T) {
	f := newFolder(t)
	refuse := func() (*fsnotify.Watcher, error) { return nil, os.NewSyscallError("inotify_init1", syscall.EMFILE) }
	w := sourcetest.New(t, &refusing{f, refuse})
	w.Start()
	f.Write("a.yaml", sourcetest.Project("a", "web:1"))
	w.Create(func(s *carav1.SourceSpec) { s.Interval = "1s" })
	w.Published(1)
	w.Hint()
	reason, message := w.Condition(api.CondWatchDegraded, api.StatusTrue)
	if reason != "Polling" || !strings.HasPrefix(message, "the kernel refuses file watches (") || !strings.Contains(message, "fs.inotify.max_user_watches") {
		t.Errorf("%s: %s", reason, message)
	}
	f.Write("b.yaml", sourcetest.Project("b", "web:1"))
	w.Published(2) // by polling
}

type refusing struct {
	*folder
	refuse func() (*fsnotify.Watcher, error)
}

func (r *refusing) Opener() sources.Opener { return dir.New(dir.Config{NewWatcher: r.refuse}) }

func TestErrors(t *testing.T) {
	f := newFolder(t)
	f.must(os.WriteFile(f.root+".file", nil, 0o644))
	tests := map[string]struct {
		path, sub string
		reason    api.Reason
		human     bool
		want      string
	}{
		"missing":      {f.root + ".no", "", api.ReasonDirectoryUnavailable, false, "directory PATH does not exist; make it, mount it, or change spec.dir.path"},
		"a file":       {f.root + ".file", "", api.ReasonDirectoryUnavailable, true, "PATH is not a directory; change spec.dir.path"},
		"relative":     {"manifests", "", api.ReasonInvalidSpec, true, `spec.dir.path "PATH" is not absolute; name the directory from / on, as the server's machine has it`},
		"path missing": {f.root, "deploy", api.ReasonPathNotFound, true, `path "deploy" does not exist in PATH; check spec.path`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := f.Opener().Open(&carav1.SourceSpec{Dir: &carav1.DirSource{Path: tt.path}, Path: tt.sub}, nil)
			if err == nil {
				_, err = d.Probe(t.Context(), 0)
			}
			var e *sources.Error
			if !errors.As(err, &e) {
				t.Fatalf("err = %v", err)
			}
			if got := strings.ReplaceAll(e.Message, tt.path, "PATH"); got != tt.want || e.Reason != tt.reason || e.Human != tt.human {
				t.Errorf("%s, human %v: %s", e.Reason, e.Human, got)
			}
		})
	}
}

func TestTooManyFiles(t *testing.T) {
	f := newFolder(t)
	for i := range sources.MaxFiles + 1 {
		f.Write(fmt.Sprintf("d%d/f%d.yaml", i%100, i), "x")
	}
	d, err := f.Opener().Open(f.Spec(), nil)
	f.must(err)
	_, err = d.Probe(t.Context(), 0)
	if err == nil || err.Error() != "more than 10000 manifest files; the limit of a source: narrow it with spec.path or spec.include" {
		t.Errorf("err = %v", err)
	}
}

func TestFileThatChangesWhileItIsRead(t *testing.T) {
	f := newFolder(t)
	f.Write("a.yaml", "one")
	d, err := f.Opener().Open(f.Spec(), nil)
	f.must(err)
	rev, err := d.Probe(t.Context(), 0)
	f.must(err)
	tree, err := d.Tree(t.Context(), rev)
	f.must(err)
	f.Write("a.yaml", "two")
	if _, err := tree.Files[0].Read(t.Context()); !errors.Is(err, sources.ErrMoved) {
		t.Errorf("err = %v", err)
	}
}

// BenchmarkScan looks at 10,000 files that did not change.
func BenchmarkScan(b *testing.B) {
	f := newFolder(b)
	for i := range sources.MaxFiles {
		f.Write(fmt.Sprintf("d%d/f%d.yaml", i%100, i), sourcetest.Project(fmt.Sprintf("p%d", i), "web:1"))
	}
	d, err := f.OpenerAt(func() time.Time { return time.Now().Add(time.Hour) }).Open(f.Spec(), nil)
	f.must(err)
	for b.Loop() {
		if _, err := d.Probe(b.Context(), 0); err != nil {
			b.Fatal(err)
		}
	}
}

func (f *folder) OpenerAt(now func() time.Time) sources.Opener { return dir.New(dir.Config{Now: now}) }
