package backup

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testneed"
)

func (s *site) fails(t *testing.T, want api.Reason) {
	t.Helper()
	h := &hand{}
	_, f := s.Run(t.Context(), s.job, h)
	if f == nil || f.Reason != want {
		t.Errorf("failure %v, want %s", f, want)
	}
	h.did(t) // nothing is paused for a repository that cannot be used
}

func TestFaultsBeforeAnythingIsPaused(t *testing.T) {
	t.Run("wrong password", func(t *testing.T) {
		s := newSite(t, nil)
		s.backUp(t, &hand{})
		s.job.Values[api.BackupPassword] = []byte("another one")
		s.fails(t, api.ReasonWrongPassword)
	})
	t.Run("unreachable", func(t *testing.T) {
		s := newSite(t, map[string][]byte{
			api.BackupRepository: []byte("rest:http://127.0.0.1:1/shop"),
		})
		s.fails(t, api.ReasonRepositoryUnreachable)
	})
	t.Run("a directory that the operator does not offer", func(t *testing.T) {
		s := newSite(t, nil)
		s.Dirs = nil
		s.fails(t, api.ReasonRepositoryNotAllowed)
	})
	t.Run("no restic", func(t *testing.T) {
		s := newSite(t, nil)
		s.Restic = filepath.Join(t.TempDir(), "restic")
		s.fails(t, api.ReasonResticMissing)
	})
	t.Run("no credentials", func(t *testing.T) {
		s := newSite(t, map[string][]byte{api.BackupRepository: []byte("s3:http://127.0.0.1:1/b")})
		s.fails(t, api.ReasonBackupSecret)
	})
	t.Run("the volume cannot be read", func(t *testing.T) {
		s := newSite(t, nil)
		s.job.Volumes[0].Path = ""
		s.fails(t, api.ReasonVolumeUnreadable)
	})
	t.Run("full", func(t *testing.T) {
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
			testneed.Missing(t, "a small file system: %v", err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		s := newSite(t, map[string][]byte{api.BackupRepository: []byte(filepath.Join(dir, "repository"))})
		s.Dirs = []string{dir}
		noise := make([]byte, 3<<20)
		for i := range noise {
			noise[i] = byte(i * i >> 3)
		}
		file, err := os.Open("/dev/urandom")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Read(noise); err != nil {
			t.Fatal(err)
		}
		s.write(t, "noise", string(noise))
		s.fails(t, api.ReasonRepositoryFull)
	})
}

// TestLocks: the lock of a run that is alive is respected, and the data is safe; the lock of a dead run is removed.
func TestLocks(t *testing.T) {
	s := newSite(t, nil)
	s.job.Spec = &carav1.Backup{Keep: &carav1.BackupKeep{Last: 1}}
	s.backUp(t, &hand{})
	holder := s.command(t, "backup", "--stdin")
	input, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	for locks := 0; locks == 0; {
		entries, err := os.ReadDir(filepath.Join(text(s.job.Values, api.BackupRepository), "locks"))
		if err != nil {
			t.Fatal(err)
		}
		locks = len(entries)
	}
	result, f := s.Run(t.Context(), s.job, &hand{})
	if f != nil || result.Warning == nil || result.Warning.Reason != api.ReasonRepositoryLocked {
		t.Errorf("with a lock: %v, %v", result, f)
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // killed
	s.backUp(t, &hand{})
	if got := s.snapshots(t, "project=shop"); len(got) != 1 {
		t.Errorf("snapshots %v, want 1: the first passes were to be removed, too", got)
	}
}

func TestVerify(t *testing.T) {
	s := newSite(t, nil)
	s.write(t, "sub/large", strings.Repeat("0123456789", 100_000))
	result := s.backUp(t, &hand{})
	verify := func() *Failure {
		t.Helper()
		f := s.Verify(t.Context(), s.job, result.Snapshots)
		if left, err := filepath.Glob(filepath.Join(s.Dir, "verify-*")); len(left) > 0 || err != nil {
			t.Errorf("left %v, %v", left, err)
		}
		return f
	}
	if f := verify(); f != nil {
		t.Fatal(f)
	}
	s.write(t, "rows", "changed since") // no problem: it is newer than the backup
	if f := verify(); f != nil {
		t.Error(f)
	}
	t.Run("a byte of the volume changed without a trace", func(t *testing.T) {
		path := filepath.Join(s.volume, "sub", "large")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, "sub/large", strings.Repeat("012345678x", 100_000))
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		if f := verify(); f == nil || f.Reason != api.ReasonRepositoryCorrupted || !strings.Contains(f.Message, "sub/large") {
			t.Errorf("failure %v", f)
		}
		s.write(t, "sub/large", "new")
	})
	t.Run("less was restored", func(t *testing.T) {
		result.Snapshots[0].Bytes++
		defer func() { result.Snapshots[0].Bytes-- }()
		if f := verify(); f == nil || f.Reason != api.ReasonRepositoryCorrupted {
			t.Errorf("failure %v", f)
		}
	})
	t.Run("the repository is damaged", func(t *testing.T) {
		err := filepath.WalkDir(filepath.Join(text(s.job.Values, api.BackupRepository), "data"), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data[20] ^= 0xff
			if err := os.Chmod(path, 0o600); err != nil {
				return err
			}
			return os.WriteFile(path, data, 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(s.Dir, "cache")); err != nil {
			t.Fatal(err)
		}
		if f := verify(); f == nil || f.Reason != api.ReasonRepositoryCorrupted {
			t.Errorf("failure %v", f)
		}
	})
}
