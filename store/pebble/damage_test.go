package pebble

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// flip changes a byte of a file in memory.
func flip(t *testing.T, disk vfs.FS, path string, at int64) {
	t.Helper()
	f, err := disk.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func filesOf(t *testing.T, disk vfs.FS, match func(name string) bool) (paths []string) {
	t.Helper()
	names, err := disk.List("data")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names) // the newest is the last
	for _, name := range names {
		if match(name) {
			paths = append(paths, disk.PathJoin("data", name))
		}
	}
	return paths
}

// A flipped byte anywhere in the MANIFEST or the log is either harmless or an error with advice. The failed start leaves the
// files as they were: with the byte restored, everything is there.
func TestDamagedFilesAreRefusedAndKept(t *testing.T) {
	for _, name := range []string{"MANIFEST", ".log"} {
		match := func(file string) bool { return strings.Contains(file, name) }
		t.Run(name, func(t *testing.T) {
			disk, refused := filled(t), 0
			for _, path := range filesOf(t, disk, match) {
				info, err := disk.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				step := max(1, info.Size()/60)
				for at := int64(0); at < info.Size(); at += step {
					copied := disk.CrashClone(vfs.CrashCloneCfg{})
					flip(t, copied, path, at)
					if s, err := Open(Config{Dir: "data", FS: copied}); err == nil {
						expectRevision(t, s, 40)
						if err := s.Close(); err != nil {
							t.Error(err)
						}
						continue
					} else if refused++; !strings.Contains(err.Error(), "restore the data directory from a backup") {
						t.Errorf("byte %d of %s: %v", at, path, err)
					}
					flip(t, copied, path, at)
					s, err := Open(Config{Dir: "data", FS: copied})
					if err != nil {
						t.Fatalf("byte %d of %s is right again: %v", at, path, err)
					}
					expectRevision(t, s, 40)
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}
			}
			if refused == 0 {
				t.Error("no damage was found")
			}
		})
	}
}

// A truncated MANIFEST looks complete to Pebble, which then deletes the tables that it does not mention. Such a start fails
// before it deletes anything: with the rest of the MANIFEST restored, everything is there.
func TestCutManifestDeletesNothing(t *testing.T) {
	disk := filled(t)
	all, err := Open(Config{Dir: "data", FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(all.db.Flush(), all.Close()); err != nil { // so that the log is empty and cannot reveal the loss
		t.Fatal(err)
	}
	paths := filesOf(t, disk, func(name string) bool { return strings.HasPrefix(name, "MANIFEST") })
	path := paths[len(paths)-1]
	whole := readAll(t, disk, path)
	refused := 0
	for n := range whole {
		copied := disk.CrashClone(vfs.CrashCloneCfg{})
		rewrite(t, copied, path, whole[:n])
		s, err := Open(Config{Dir: "data", FS: copied})
		if err == nil {
			expectRevision(t, s, 40)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		if refused++; !strings.Contains(err.Error(), "restore the data directory from a backup") {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
		rewrite(t, copied, path, whole)
		if s, err = Open(Config{Dir: "data", FS: copied}); err != nil {
			t.Fatalf("cut to %d bytes and put back: %v", n, err)
		}
		expectRevision(t, s, 40)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if refused == 0 {
		t.Error("no cut was found")
	}
}

func readAll(t *testing.T, disk vfs.FS, path string) []byte {
	t.Helper()
	f, err := disk.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func rewrite(t *testing.T, disk vfs.FS, path string, content []byte) {
	t.Helper()
	f, err := disk.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(slices.Clone(content)) // under the race detector, the file system of the tests spoils what it was given
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestOpenWithoutRights(t *testing.T) {
	for name, err := range map[string]error{"permission": fs.ErrPermission, "read-only": syscall.EROFS} {
		t.Run(name, func(t *testing.T) {
			fault := failing(err)
			fault.On()
			_, err := Open(Config{Dir: "data", FS: errorfs.Wrap(filled(t), fault)})
			if err == nil || !strings.Contains(err.Error(), "right to read and write") || strings.Contains(err.Error(), "another cara-server") {
				t.Errorf("open: %v", err)
			}
		})
	}
}

// A damaged table of the old log is reported by Err and by a bounded number of log lines: Pebble's background work fails
// repeatedly, and must not do so in a busy loop.
func TestDamagedTableIsToldOnce(t *testing.T) {
	log := &lines{}
	disk := vfs.NewMem()
	s := openTest(t, Config{Dir: "data", FS: disk, CacheBytes: 1, Logger: log.logger()})
	for i := range 10 {
		for j := range 20 {
			if _, err := s.Commit(t.Context(), pair(fmt.Sprintf("%d-%d", i, j))); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
			for _, path := range filesOf(t, disk, func(name string) bool { return strings.HasSuffix(name, ".sst") }) {
				for at := range int64(60) {
					flip(t, disk, path, at*7)
				}
			}
			continue
		}
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the damage is told", func() bool { return s.Err() != nil })
	if err := s.Err(); !strings.Contains(err.Error(), "restore the data directory from a backup") {
		t.Errorf("Err: %v", err)
	}
	put1(t, s, "after")
	if n := strings.Count(log.all(), "level=ERROR"); n > 5 {
		t.Errorf("%d lines:\n%s", n, log.all())
	}
}
