package dir_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/sourcetest"
)

func TestTenThousandFiles(t *testing.T) {
	testneed.NotShort(t)
	f := newFolder(t)
	for i := range sources.MaxFiles {
		f.Write(fmt.Sprintf("team-%d/p%05d.yaml", i%100, i), sourcetest.Project(fmt.Sprintf("p%05d", i), "web:1"))
	}
	w := sourcetest.New(t, f)
	w.Start()
	w.Create()
	if p := w.Published(1); p.Head.Files != sources.MaxFiles || len(p.Upserts) != sources.MaxFiles || !p.Head.Complete {
		t.Fatalf("%d files, %d claims, complete %v", p.Head.Files, len(p.Upserts), p.Head.Complete)
	}
	f.Write("team-7/p00007.yaml", sourcetest.Project("p00007", "web:2")) // nobody pokes: the watch has to see it
	p := w.Published(2)
	if len(p.Upserts) != 1 || p.Upserts[0].Project.Spec.Services[0].Image != "web:2" {
		t.Errorf("%d claims of one change", len(p.Upserts))
	}
	f.must(os.RemoveAll(f.root + "/team-8"))
	if p := w.Published(3); len(p.Absent) != 100 {
		t.Errorf("%d claims absent of a folder of 100", len(p.Absent))
	}
}

// A checkout changes, adds and removes many files, one after the other. Each snapshot in between may see a part of it. The
// last one sees it completely, and nothing that exists in both branches is ever absent.
func TestCheckoutBetweenBranches(t *testing.T) {
	testneed.Program(t, "git", "git")
	f := newFolder(t)
	git := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@x", "-C", f.root}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	git("init", "--quiet", "--initial-branch=main")
	write := func(image string, from, to int) {
		for i := from; i < to; i++ {
			f.Write(fmt.Sprintf("d%d/p%03d.yaml", i%7, i), sourcetest.Project(fmt.Sprintf("p%03d", i), image))
		}
	}
	write("web:1", 0, 200)
	git("add", ".")
	git("commit", "--quiet", "-m", "one")
	git("switch", "--quiet", "-c", "other")
	git("rm", "--quiet", "-r", "d0", "d1")
	write("web:2", 100, 300)
	git("add", ".")
	git("commit", "--quiet", "-m", "two")
	git("switch", "--quiet", "main")
	w := sourcetest.New(t, f)
	w.Start()
	w.Create()
	w.Published(1)
	present := func() (n int) {
		for _, c := range w.Claims() {
			if !strings.HasSuffix(c, " absent") {
				n++
			}
		}
		return n
	}
	for i, branch := range []string{"other", "main", "other", "main"} {
		git("switch", "--quiet", branch)
		want := 200
		if branch == "other" {
			want = len(glob(t, f.root))
		}
		w.Wait(fmt.Sprintf("checkout %d of %s: %d projects", i, branch, want), func() bool { return present() == want })
	}
	both := "d3/p150" // in both, with another image
	for _, p := range w.Server.Publishes() {
		if len(p.Head.FileErrors) > 0 {
			t.Errorf("a checkout made errors: %v", p.Head.FileErrors)
		}
		if slices.Contains(p.Absent, "p150") {
			t.Errorf("%s was absent at %s", both, p.Head.Revision)
		}
	}
}

func glob(t *testing.T, root string) (files []string) {
	t.Helper()
	for i := range 7 {
		entries, err := os.ReadDir(fmt.Sprintf("%s/d%d", root, i))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			files = append(files, e.Name())
		}
	}
	return files
}

func TestMountedRootThatIsUnmounted(t *testing.T) {
	f := newFolder(t)
	mount := func() error {
		return syscall.Mount("cara-test", f.root, "tmpfs", 0, "size=1m")
	}
	if err := mount(); err != nil {
		testneed.Missing(t, "mounting a file system needs root: %v", err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			f.must(syscall.Unmount(f.root, syscall.MNT_DETACH))
		}
	})
	w := sourcetest.New(t, f)
	w.Start()
	f.Write("a.yaml", sourcetest.Project("a", "web:1"))
	w.Create(func(s *carav1.SourceSpec) { s.Interval, s.AllowEmpty = "1s", true })
	w.Published(1)
	f.must(syscall.Unmount(f.root, syscall.MNT_DETACH))
	mounted = false
	reason, message := w.Condition("FetchFailed", "True")
	if reason != api.ReasonDirectoryUnavailable || !strings.HasPrefix(message, "directory "+f.root+" is empty and its file system is gone: mount it again") {
		t.Errorf("%s: %s", reason, message)
	}
	if got := w.Claims(); !slices.Equal(got, []string{"a a.yaml:1"}) || len(w.Server.Publishes()) != 1 {
		t.Errorf("claims %q after %d snapshots", got, len(w.Server.Publishes()))
	}
	f.must(mount())
	mounted = true
	f.Write("b.yaml", sourcetest.Project("b", "web:1"))
	w.Published(2)
	w.Stop() // nothing of it keeps the mount busy
}

// The kernel's limit of watches is per user namespace, so this test runs itself in a new one.
func TestWatchLimitExhausted(t *testing.T) {
	const inside = "CARA_TEST_WATCHES"
	if os.Getenv(inside) == "" {
		self := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWatchLimitExhausted$", "-test.v")
		self.Env = append(os.Environ(), inside+"=1")
		self.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		out, err := self.CombinedOutput()
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
			testneed.Missing(t, "a user namespace: %v", err)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := os.WriteFile("/proc/sys/user/max_inotify_watches", []byte("10"), 0); err != nil {
		t.Fatal(err)
	}
	f := newFolder(t)
	for i := range 20 {
		f.Write(fmt.Sprintf("d%02d/a.yaml", i), sourcetest.Project(fmt.Sprintf("p%02d", i), "web:1"))
	}
	w := sourcetest.New(t, f)
	w.Start()
	w.Create(func(s *carav1.SourceSpec) { s.Interval = "1s" })
	w.Published(1)
	reason, message := w.Condition("WatchDegraded", "True")
	if reason != "Polling" || message != "the kernel refuses file watches (no space left on device), so changes are noticed within 15s; "+
		"raise fs.inotify.max_user_watches and fs.inotify.max_user_instances" {
		t.Errorf("%s: %s", reason, message)
	}
	f.Write("d19/a.yaml", sourcetest.Project("p19", "web:2"))
	w.Published(2) // by polling
	for i := range 15 {
		f.must(os.RemoveAll(fmt.Sprintf("%s/d%02d", f.root, i)))
	}
	w.Condition("WatchDegraded", "False") // there is room again
	if n := len(w.Claims()); n != 20 {
		t.Errorf("%d claims", n)
	}
}

// 100,000 events in a burst: the kernel's queue overflows, there are few hints, and the last state is published.
func TestHundredThousandEvents(t *testing.T) {
	testneed.NotShort(t)
	f := newFolder(t)
	f.Write("a.yaml", sourcetest.Project("a", "web:0"))
	w := sourcetest.New(t, f)
	w.Start()
	w.Create()
	w.Published(1)
	for i := range 25_000 { // four events each: create, write, close, rename
		f.must(os.WriteFile(f.root+"/next.txt", []byte("x"), 0o644))
		f.must(os.Rename(f.root+"/next.txt", fmt.Sprintf("%s/%d.txt", f.root, i%50)))
	}
	f.Write("a.yaml", sourcetest.Project("a", "web:1"))
	p := w.Published(2)
	if image := p.Upserts[0].Project.Spec.Services[0].Image; image != "web:1" {
		t.Errorf("image = %s", image)
	}
	if n := w.Server.Polled(sourcetest.Name); n > 60 {
		t.Errorf("%d looks at the directory", n)
	}
	if len(w.Server.Events()) > 0 {
		t.Errorf("events: %v", w.Server.Events())
	}
}
