package backup

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

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestRestoreWithoutCara: the data, its owners and its links come back with restic alone.
func TestRestoreWithoutCara(t *testing.T) {
	s := newSite(t, nil)
	s.write(t, "sub/odd name\n\xff", "odd")
	if err := os.Link(filepath.Join(s.volume, "rows"), filepath.Join(s.volume, "sub", "link")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("/etc/passwd", filepath.Join(s.volume, "abs")), os.Chmod(s.volume, 0o700)); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(s.volume, 999, 998); err != nil {
			t.Fatal(err)
		}
	}
	result := s.backUp(t, &hand{})
	s.quiet(t)
	if len(result.Snapshots) != 1 || result.Snapshots[0].GetVolume() != "db" || result.Snapshots[0].GetBytes() != 5 {
		t.Errorf("snapshots %v", result.Snapshots)
	}
	if found := s.snapshots(t, "project=shop", "volume=db", "uid=0123"); len(found) != 1 || !strings.HasPrefix(found[0], result.Snapshots[0].GetId()) {
		t.Errorf("found by tags: %v", found)
	}
	if all := s.snapshots(t); len(all) != 1 {
		t.Errorf("all snapshots: %v; the one of the first pass stayed", all)
	}
	to := t.TempDir()
	s.restic(t, "restore", "latest", "--host", "cara", "--tag", "project=shop,volume=db", "--target", to)
	for name, want := range map[string]string{"rows": "1", "sub/link": "1", "sub/odd name\n\xff": "odd"} {
		if got, err := os.ReadFile(filepath.Join(to, "_data", name)); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(to, "_data"), &st); err != nil || st.Mode&0o777 != 0o700 || os.Getuid() == 0 && (st.Uid != 999 || st.Gid != 998) {
		t.Errorf("the directory has owner %d:%d, mode %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
	if err := syscall.Stat(filepath.Join(to, "_data", "rows"), &st); err != nil || st.Nlink != 2 {
		t.Errorf("%d links, %v", st.Nlink, err)
	}
	if target, err := os.Readlink(filepath.Join(to, "_data", "abs")); err != nil || target != "/etc/passwd" {
		t.Errorf("link to %q, %v", target, err)
	}
}

// TestTheSecondPassIsPaused: the snapshot has what was written until the pause, and nothing that was written after it.
func TestTheSecondPassIsPaused(t *testing.T) {
	s := newSite(t, nil)
	h := &hand{
		pause:  func() error { s.write(t, "rows", "until the pause"); return nil },
		resume: func() error { s.write(t, "rows", "after the pause"); return nil },
	}
	result := s.backUp(t, h)
	h.did(t, "pause", "resume")
	if got := s.restic(t, "dump", result.Snapshots[0].GetId(), "/_data/rows"); got != "until the pause" {
		t.Errorf("the snapshot has %q", got)
	}
	if result.Pause <= 0 || result.Taken.After(time.Now()) {
		t.Errorf("pause %s, taken %s", result.Pause, result.Taken)
	}
}

func TestWithoutPause(t *testing.T) {
	s, h, no := newSite(t, nil), &hand{}, false
	s.job.Spec = &carav1.Backup{Pause: &no}
	s.backUp(t, h)
	h.did(t)
	if all := s.snapshots(t); len(all) != 1 {
		t.Errorf("snapshots %v", all)
	}
}

// TestResumedInEveryCase: whatever fails while the containers are paused, they are resumed, and no snapshot looks complete.
func TestResumedInEveryCase(t *testing.T) {
	tests := []struct {
		name   string
		pause  func(t *testing.T, s *site, cancel func()) error
		reason api.Reason
	}{
		{"the pause fails", func(*testing.T, *site, func()) error { return errors.New("the engine is away") }, api.ReasonPauseFailed},
		{"restic fails", func(t *testing.T, s *site, _ func()) error {
			script(t, s.Restic, "echo 'no space left on device' >&2; exit 1")
			return nil
		}, api.ReasonRepositoryFull},
		{"the backup is cancelled", func(_ *testing.T, _ *site, cancel func()) error { cancel(); return nil }, api.ReasonBackupFailed},
		{"it takes too long", func(t *testing.T, s *site, _ func()) error {
			script(t, s.Restic, "exec sleep 1000")
			return nil
		}, api.ReasonPauseFailed},
		{"some files cannot be read", func(t *testing.T, s *site, _ func()) error {
			text, err := os.ReadFile(s.Restic)
			script(t, s.Restic, strings.Replace(string(text), "exec ", `[ "$1" = forget ] || wrong=3;`, 1)+"\nexit ${wrong:-0}")
			return err
		}, api.ReasonVolumeUnreadable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, nil)
			s.PauseLimit = 5 * time.Second
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			h := &hand{pause: func() error { return tt.pause(t, s, cancel) }}
			_, f := s.Run(ctx, s.job, h)
			if f == nil || f.Reason != tt.reason {
				t.Errorf("failure %v, want %s", f, tt.reason)
			}
			h.did(t, "pause", "resume")
			if h.late {
				t.Error("the containers were resumed with a context that had ended")
			}
			if whole := len(s.snapshots(t)) - len(s.snapshots(t, tagFirst)); whole != 0 {
				t.Errorf("%d snapshots look complete", whole)
			}
		})
	}
}

// TestCancelledBetweenVolumes: if a backup ends while it copies the second volume, the snapshot of the first one goes, too. It
// would look complete.
func TestCancelledBetweenVolumes(t *testing.T) {
	s := newSite(t, nil)
	files := filepath.Join(filepath.Dir(s.volume)+"-files", "_data")
	waits := filepath.Join(s.Dir, temporaryDir, "waits")
	if err := errors.Join(os.MkdirAll(files, 0o700), os.MkdirAll(filepath.Dir(waits), 0o700), syscall.Mkfifo(waits, 0o600)); err != nil {
		t.Fatal(err)
	}
	s.job.Volumes = append(s.job.Volumes, Volume{Name: "files", UID: "4567", Path: files})
	text, err := os.ReadFile(s.Restic)
	if err != nil {
		t.Fatal(err)
	}
	script(t, s.Restic, `case "$*" in *volume=files*--parent*) echo >`+waits+"; exec sleep 1000;; esac\n"+string(text))
	second, err := os.OpenFile(waits, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	waiting.Go(func() {
		_, _ = second.Read(make([]byte, 1)) // or the test has ended
		cancel()
	})
	_, f := s.Run(ctx, s.job, &hand{})
	_ = second.Close() // ends the read
	waiting.Wait()
	if f == nil || !strings.Contains(f.Message, "files") {
		t.Errorf("failure %v", f)
	}
	if left, first := s.snapshots(t), s.snapshots(t, tagFirst); len(left) != len(first) {
		t.Errorf("the snapshots %v look complete: only %v are of the first pass", left, first)
	}
}

func TestHooks(t *testing.T) {
	hooks := &carav1.BackupHooks{
		Before: &carav1.BackupHook{Service: "db", Command: []string{"dump"}}, After: &carav1.BackupHook{Service: "db", Command: []string{"clean"}},
	}
	t.Run("a dump", func(t *testing.T) {
		s := newSite(t, nil)
		s.job.Spec.Hooks = hooks
		h := &hand{exec: func(_ string, command []string) (int, string, error) {
			if command[0] == "dump" {
				s.write(t, "dump.sql", "all rows")
			}
			return 0, "", nil
		}}
		result := s.backUp(t, h)
		h.did(t, "exec db dump", "pause", "resume", "exec db clean")
		if got := s.restic(t, "dump", result.Snapshots[0].GetId(), "/_data/dump.sql"); got != "all rows" {
			t.Errorf("the snapshot has %q", got)
		}
	})
	t.Run("before fails", func(t *testing.T) {
		s := newSite(t, nil)
		s.job.Spec.Hooks = hooks
		h := &hand{exec: func(string, []string) (int, string, error) { return 2, "no such table", nil }}
		_, f := s.Run(t.Context(), s.job, h)
		if f == nil || f.Reason != api.ReasonHookFailed || !strings.Contains(f.Message, "before") || !strings.Contains(f.Message, "no such table") {
			t.Errorf("failure %v", f)
		}
		h.did(t, "exec db dump", "exec db clean")
	})
	t.Run("after fails", func(t *testing.T) {
		s := newSite(t, nil)
		s.job.Spec.Hooks = &carav1.BackupHooks{After: hooks.After}
		h := &hand{exec: func(string, []string) (int, string, error) { return 0, "", errors.New("it is not running") }}
		if _, f := s.Run(t.Context(), s.job, h); f == nil || f.Reason != api.ReasonHookFailed || !strings.Contains(f.Message, "after") {
			t.Errorf("failure %v", f)
		}
	})
	t.Run("no end", func(t *testing.T) {
		s := newSite(t, nil)
		s.job.Spec.Hooks = &carav1.BackupHooks{Before: &carav1.BackupHook{Service: "db", Command: []string{"dump"}, Timeout: "1s"}}
		stuck := &stuckExec{}
		if _, f := s.Run(t.Context(), s.job, stuck); f == nil || f.Reason != api.ReasonHookFailed || !strings.Contains(f.Message, "1s") {
			t.Errorf("failure %v", f)
		}
	})
}

type stuckExec struct{ hand }

func (*stuckExec) Exec(ctx context.Context, _ string, _ []string) (int, string, error) {
	<-ctx.Done()
	return 0, "", ctx.Err()
}

// TestKeep: keep removes old snapshots of its own volume, and none of another volume or project in the same repository.
func TestKeep(t *testing.T) {
	s := newSite(t, nil)
	other := s.job
	s.job.Spec = &carav1.Backup{Keep: &carav1.BackupKeep{Last: 2}}
	other.Project = "shop2"
	for i := range 4 {
		s.write(t, "rows", fmt.Sprint(i))
		s.backUp(t, &hand{})
		if _, f := s.Run(t.Context(), other, &hand{}); f != nil {
			t.Fatal(f)
		}
	}
	second := s.job
	second.Volumes = []Volume{{Name: "media", UID: "4567", Path: s.volume}}
	for range 3 {
		if _, f := s.Run(t.Context(), second, &hand{}); f != nil {
			t.Fatal(f)
		}
	}
	for tags, want := range map[string]int{"project=shop,volume=db": 2, "project=shop,volume=media": 2, "project=shop2": 4, tagFirst: 0} {
		if got := s.snapshots(t, tags); len(got) != want {
			t.Errorf("%d snapshots with %s, want %d", len(got), tags, want)
		}
	}
	if got := s.restic(t, "dump", "latest", "--tag", "project=shop,volume=db", "/_data/rows"); got != "3" {
		t.Errorf("the newest snapshot has %q", got)
	}
}
