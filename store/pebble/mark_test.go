package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// killed is the disk of a store that was killed after 40 commits: what was written is there, synced or not.
func killed(t *testing.T) *vfs.MemFS {
	t.Helper()
	disk := vfs.NewCrashableMem()
	s := openTest(t, Config{Dir: "data", FS: disk})
	for i := range 40 {
		if _, err := s.Commit(t.Context(), pair(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	return disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

// newestLog returns the write-ahead log that a killed store wrote last, and where its data ends.
func newestLog(t *testing.T, disk vfs.FS) (string, int64) {
	t.Helper()
	logs := filesOf(t, disk, func(name string) bool { return strings.HasSuffix(name, ".log") })
	path := logs[len(logs)-1]
	return path, int64(len(bytes.TrimRight(readAll(t, disk, path), "\x00")))
}

// A flipped byte at the end of the log looks like a torn write to Pebble, which drops the transaction. The start fails and
// changes nothing: with the byte restored, everything is there. Without the mark the store starts with what is left.
func TestDamagedEndOfLogIsRefused(t *testing.T) {
	disk := killed(t)
	path, end := newestLog(t, disk)
	for at := end - 200; at < end; at += 7 {
		copied := disk.CrashClone(vfs.CrashCloneCfg{})
		flip(t, copied, path, at)
		err := refused(t, copied)
		for _, part := range []string{"revision 40 was acknowledged", "restore the data directory from a backup", "delete the file data/acknowledged"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("byte %d: %v; want it to say %q", at, err, part)
			}
		}
		flip(t, copied, path, at)
		expectOpen(t, copied, 40)

		accepted := disk.CrashClone(vfs.CrashCloneCfg{})
		flip(t, accepted, path, at)
		if err := accepted.Remove("data/" + markName); err != nil {
			t.Fatal(err)
		}
		s := openTest(t, Config{Dir: "data", FS: accepted})
		if got := put1(t, s, "after"); got > 40 {
			t.Errorf("byte %d: the first revision without the mark is %d, want one that was lost", at, got)
		}
	}
}

// A store whose files are missing is not a new store.
func TestMissingFilesAreRefused(t *testing.T) {
	for name, match := range map[string]func(string) bool{
		"log":      func(name string) bool { return strings.HasSuffix(name, ".log") },
		"database": func(name string) bool { return name != markName },
	} {
		t.Run(name, func(t *testing.T) {
			disk := killed(t)
			for _, path := range filesOf(t, disk, match) {
				if err := disk.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			}
			if err := refused(t, disk); !strings.Contains(err.Error(), "revision 40 was acknowledged") {
				t.Error(err)
			}
		})
	}
}

func refused(t *testing.T, disk vfs.FS) error {
	t.Helper()
	s, err := Open(Config{Dir: "data", FS: disk})
	if err == nil {
		t.Fatal(errors.Join(errors.New("it opens"), s.Close()))
	}
	return err
}

func expectOpen(t *testing.T, disk vfs.FS, revision int64) {
	t.Helper()
	s := openTest(t, Config{Dir: "data", FS: disk})
	expectRevision(t, s, revision)
}

// A mark that is missing, torn or older than the store proves nothing.
func TestMarkThatProvesNothing(t *testing.T) {
	later := encodeMark(nil, 41)
	for name, content := range map[string][]byte{
		"older":    encodeMark(nil, 39),
		"empty":    {},
		"zeros":    make([]byte, len(later)),
		"cut":      later[:len(later)-3],
		"torn":     append(bytes.Clone(later[:len(later)-5]), encodeMark(nil, 7)[len(later)-5:]...),
		"overlong": append(encodeMark(nil, 40), "more"...),
	} {
		t.Run(name, func(t *testing.T) {
			disk := killed(t)
			rewrite(t, disk, "data/"+markName, content)
			expectOpen(t, disk, 40)
			expectMark(t, disk, "data", 40)
		})
	}
	t.Run("missing", func(t *testing.T) {
		disk := killed(t)
		if err := disk.Remove("data/" + markName); err != nil {
			t.Fatal(err)
		}
		expectOpen(t, disk, 40)
	})
}

func expectMark(t *testing.T, disk vfs.FS, dir string, want int64) {
	t.Helper()
	if got, err := readMark(disk, dir); err != nil || got != want {
		t.Errorf("the mark says %d, %v; want %d", got, err, want)
	}
}

// A commit that is answered is in the mark, and a closed store's mark outlives a power cut.
func TestMarkFollowsCommits(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s, err := Open(Config{Dir: "data", FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	for want := int64(1); want < 5; want++ {
		put1(t, s, "a")
		expectMark(t, disk, "data", want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	expectMark(t, disk.CrashClone(vfs.CrashCloneCfg{}), "data", 4)
}

// A backup that is unpacked over a newer data directory brings its own mark.
func TestBackupHasItsMark(t *testing.T) {
	root := t.TempDir()
	s := openTest(t, Config{Dir: filepath.Join(root, "data")})
	put1(t, s, "a")
	backup := filepath.Join(root, "backup")
	if err := s.Checkpoint(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	put1(t, s, "b")
	expectMark(t, vfs.Default, backup, 1)
	expectRevision(t, openTest(t, Config{Dir: backup}), 1)
}

// A disk on which only the mark cannot be written loses no acknowledged write, and this is logged once.
func TestMarkCannotBeWritten(t *testing.T) {
	fault := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWriteAt && strings.HasSuffix(op.Path, markName) {
			return errorfs.ErrInjected
		}
		return nil
	})}
	log, disk := &lines{}, vfs.NewMem()
	s := openTest(t, Config{Dir: "data", FS: errorfs.Wrap(disk, fault), Logger: log.logger()})
	put1(t, s, "a")
	fault.On()
	put1(t, s, "b")
	put1(t, s, "c")
	fault.Off()
	expectMark(t, disk, "data", 1)
	if n := strings.Count(log.all(), "cannot note its newest revision"); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, log.all())
	}
	put1(t, s, "d")
	expectMark(t, disk, "data", 4)
}
