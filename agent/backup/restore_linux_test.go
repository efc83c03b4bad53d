package backup

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// fresh makes the empty directory of a new volume.
func (s *site) fresh(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cara-shop.db-4567", "_data")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s *site) restoration(snapshot, path string) Restoration {
	return Restoration{Project: "shop", Volume: "db", Snapshot: snapshot, Values: s.job.Values, Path: path}
}

// restored restores a snapshot, which must succeed, and returns the directory.
func (s *site) restored(t *testing.T, snapshot string) (string, Snapshot) {
	t.Helper()
	dir := s.fresh(t)
	got, f := s.Restore(t.Context(), s.restoration(snapshot, dir))
	if f != nil {
		t.Fatalf("%s: %v", f.Reason, f)
	}
	return dir, got
}

// notRestored restores a snapshot, which must fail and leave nothing.
func (s *site) notRestored(t *testing.T, snapshot, dir string, reason api.Reason, says string) {
	t.Helper()
	_, f := s.Restore(t.Context(), s.restoration(snapshot, dir))
	if f == nil || f.Reason != reason || !strings.Contains(f.Message, says) {
		t.Errorf("failure %v, want %s that says %q", f, reason, says)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func has(t *testing.T, dir, name, want string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
		t.Errorf("%s has %.20q, %v, want %.20q", name, got, err, want)
	}
}

// firstPass makes a snapshot as a killed backup leaves it.
func (s *site) firstPass(t *testing.T) string {
	t.Helper()
	cmd := s.command(t, backupArgs("shop", s.job.Volumes[0], "", true)...)
	cmd.Dir = filepath.Dir(s.volume)
	out, err := cmd.Output()
	sum, ok := parseSummary(out)
	if err != nil || !ok {
		t.Fatalf("%v: %s", err, out)
	}
	return sum.Snapshot
}

// TestRestoreChooses: the newest complete snapshot of the volume, or the one that is asked for. What else is in the repository
// does not count.
func TestRestoreChooses(t *testing.T) {
	s := newSite(t, nil)
	old := s.backUp(t, &hand{}).Snapshots[0]
	s.write(t, "rows", "second")
	newest := s.backUp(t, &hand{})
	s.write(t, "rows", "of a first pass")
	first := s.firstPass(t)
	other := s.job
	other.Project = "other"
	s.write(t, "rows", "of another project")
	foreign, f := s.Run(t.Context(), other, &hand{})
	if f != nil {
		t.Fatal(f)
	}
	dir, got := s.restored(t, "")
	has(t, dir, "rows", "second")
	if !strings.HasPrefix(got.ID, newest.Snapshots[0].GetId()) || got.Bytes != 6 || got.Time.Before(newest.Taken.Add(-1e9)) {
		t.Errorf("restored %+v, want %v of %s", got, newest.Snapshots[0], newest.Taken)
	}
	s.quiet(t)
	dir, got = s.restored(t, old.GetId())
	has(t, dir, "rows", "1")
	if !strings.HasPrefix(got.ID, old.GetId()) {
		t.Errorf("restored %+v, want %s", got, old.GetId())
	}
	dir = s.fresh(t)
	s.notRestored(t, foreign.Snapshots[0].GetId(), dir, api.ReasonSnapshotNotFound, "no snapshot "+foreign.Snapshots[0].GetId())
	s.notRestored(t, first, dir, api.ReasonSnapshotNotFound, "first pass")
}

// TestRestoreKeepsEverything: content, owners, modes, times, links and extended attributes.
func TestRestoreKeepsEverything(t *testing.T) {
	s := newSite(t, nil)
	s.write(t, "sub/odd name\n\xff", "odd")
	rows, sub := filepath.Join(s.volume, "rows"), filepath.Join(s.volume, "sub")
	err := errors.Join(os.Link(rows, filepath.Join(sub, "link")), os.Symlink("/etc/passwd", filepath.Join(s.volume, "abs")),
		syscall.Mkfifo(filepath.Join(s.volume, "pipe"), 0o620), os.Chmod(sub, 0o2750), os.Chmod(s.volume, 0o1750))
	if os.Geteuid() == 0 {
		err = errors.Join(err, os.Chown(s.volume, 999, 998), os.Chown(rows, 1001, 1002))
	}
	if err != nil {
		t.Fatal(err)
	}
	attributes := unix.Setxattr(rows, "user.cara", []byte("kept"), 0) == nil
	s.backUp(t, &hand{})
	dir, got := s.restored(t, "")
	if got.Bytes != 4 { // rows has two names
		t.Errorf("%d bytes", got.Bytes)
	}
	for name, want := range map[string]string{"rows": "1", "sub/link": "1", "sub/odd name\n\xff": "odd"} {
		has(t, dir, name, want)
	}
	for _, name := range []string{".", "rows", "sub", "sub/link", "pipe"} {
		var a, b syscall.Stat_t
		if err := errors.Join(syscall.Lstat(filepath.Join(s.volume, name), &a), syscall.Lstat(filepath.Join(dir, name), &b)); err != nil {
			t.Fatal(err)
		}
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Nlink != b.Nlink || a.Mtim != b.Mtim {
			t.Errorf("%s: mode %o, owner %d:%d, %d links, time %v; want %o, %d:%d, %d, %v", name, b.Mode, b.Uid, b.Gid, b.Nlink, b.Mtim, a.Mode, a.Uid, a.Gid, a.Nlink, a.Mtim)
		}
	}
	if target, err := os.Readlink(filepath.Join(dir, "abs")); err != nil || target != "/etc/passwd" {
		t.Errorf("link to %q, %v", target, err)
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(filepath.Join(dir, "rows"), "user.cara", value); attributes && (err != nil || string(value[:n]) != "kept") {
		t.Errorf("attribute %q, %v", value[:max(n, 0)], err)
	}
}

// TestRestoreWithoutABackup: a restore makes no repository, and does not take another project's backup.
func TestRestoreWithoutABackup(t *testing.T) {
	s := newSite(t, nil)
	if err := os.RemoveAll(text(s.job.Values, api.BackupRepository)); err != nil {
		t.Fatal(err)
	}
	s.notRestored(t, "", s.fresh(t), api.ReasonSnapshotNotFound, "no repository")
	if _, err := os.Stat(text(s.job.Values, api.BackupRepository)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a repository was made (%v)", err)
	}
	s.job.Project = "other"
	s.backUp(t, &hand{})
	s.notRestored(t, "", s.fresh(t), api.ReasonSnapshotNotFound, "make a backup first")
}

func TestRestoreCannotSucceed(t *testing.T) {
	s := newSite(t, nil)
	s.write(t, "large", strings.Repeat("0123456789", 100_000))
	s.backUp(t, &hand{})
	t.Run("wrong password", func(t *testing.T) {
		right := s.job.Values[api.BackupPassword]
		defer func() { s.job.Values[api.BackupPassword] = right }()
		s.job.Values[api.BackupPassword] = []byte("another one")
		s.notRestored(t, "", s.fresh(t), api.ReasonWrongPassword, "password")
	})
	t.Run("no restic", func(t *testing.T) {
		restic := s.Restic
		defer func() { s.Restic = restic }()
		s.Restic = filepath.Join(t.TempDir(), "restic")
		s.notRestored(t, "", s.fresh(t), api.ReasonResticMissing, "apt-get install restic")
	})
	t.Run("the directory cannot be written", func(t *testing.T) {
		_, f := s.Restore(t.Context(), s.restoration("", filepath.Join(t.TempDir(), "none", "_data")))
		if f == nil || f.Reason != api.ReasonVolumeUnreadable {
			t.Errorf("failure %v", f)
		}
	})
	for name, tt := range map[string]struct {
		after, says string
		reason      api.Reason
	}{
		"less was restored":       {`rm "$to/_data/rows"`, "1000000 were restored", api.ReasonRepositoryCorrupted},
		"the owner is another":    {`chown 7:7 "$to/_data"`, "owner 7:7", api.ReasonRestoreFailed},
		"the mode is another":     {`chmod 0711 "$to/_data"`, "mode", api.ReasonRestoreFailed},
		"restic is not satisfied": {`echo "ignoring error for /_data/rows: hash does not match" >&2; exit 1`, "restic check", api.ReasonRepositoryCorrupted},
	} {
		t.Run(name, func(t *testing.T) { s.verifies(t, tt.after, tt.says, tt.reason) })
	}
	t.Run("the repository is damaged", func(t *testing.T) {
		s.damage(t)
		s.notRestored(t, "", s.fresh(t), api.ReasonRepositoryCorrupted, "restic check")
	})
}

// verifies checks that what was not restored as it is in the snapshot is no restored volume. after are commands that run after
// restic, with the target in $to.
func (s *site) verifies(t *testing.T, after, says string, reason api.Reason) {
	t.Helper()
	before := readScript(t, s.Restic)
	defer script(t, s.Restic, before)
	script(t, s.Restic, strings.Replace(before, "exec ", "", 1)+`
code=$?
while [ $# -gt 1 ]; do [ "$1" = --target ] && to=$2; shift; done
[ -z "$to" ] || { `+after+`; }
exit $code`)
	if err := os.Remove(s.log); err != nil {
		t.Fatal(err)
	}
	s.notRestored(t, "", s.fresh(t), reason, says)
	if log, err := os.ReadFile(s.log); err != nil || !strings.Contains(string(log), "restore\n--verify\n") {
		t.Errorf("restic was not asked to verify (%v)", err)
	}
}

// damage changes a byte in every pack of data of the repository.
func (s *site) damage(t *testing.T) {
	t.Helper()
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
	if err := errors.Join(err, os.RemoveAll(filepath.Join(s.Dir, "cache"))); err != nil {
		t.Fatal(err)
	}
}

// TestRestoreStaysInTheVolume: a snapshot with other files than a volume's directory is not restored.
func TestRestoreStaysInTheVolume(t *testing.T) {
	s := newSite(t, nil)
	s.backUp(t, &hand{})
	for name, make := range map[string]func(dir string) error{
		"a file beside it": func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "_data"), 0o755), os.WriteFile(filepath.Join(dir, "opts.json"), nil, 0o600))
		},
		"another directory": func(dir string) error { return os.Mkdir(filepath.Join(dir, "other"), 0o755) },
		"a symbolic link":   func(dir string) error { return os.Symlink("/etc", filepath.Join(dir, "_data")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := make(dir); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"backup", "--host", Host, "--tag", "project=shop", "--tag", "volume=db", "--"}
			for _, e := range entries {
				args = append(args, e.Name())
			}
			cmd := s.command(t, args...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			s.notRestored(t, "", s.fresh(t), api.ReasonRestoreFailed, "exactly one directory /_data")
		})
	}
}

// TestRestoreToAFullDisk: it says that the node's disk is full, and not the repository, before and during the restore.
func TestRestoreToAFullDisk(t *testing.T) {
	s := newSite(t, nil)
	noise := make([]byte, 3<<20)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	s.write(t, "noise", string(noise))
	s.backUp(t, &hand{})
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=2m"); err != nil {
		testneed.Missing(t, "a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(mount, "cara-shop.db-4567", "_data")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.notRestored(t, "", dir, api.ReasonDiskFull, "of free space")
	// Another program says that there is enough space.
	script(t, s.Restic, strings.Replace(readScript(t, s.Restic), "exec ", `case "$1" in stats) echo '{"total_size":1}'; exit;; esac; exec `, 1))
	s.notRestored(t, "", dir, api.ReasonDiskFull, "make room there")
}

func readScript(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(text), "#!/bin/sh\n"))
}

// TestRestoreAgain: a restore that was cancelled, and one over other files, give the data of the snapshot and nothing else.
func TestRestoreAgain(t *testing.T) {
	s := newSite(t, nil)
	s.backUp(t, &hand{})
	dir := s.fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	job := s.restoration("", dir)
	job.Chosen = func(snapshot Snapshot) {
		if snapshot.Bytes != 1 {
			t.Errorf("chosen %+v", snapshot)
		}
		cancel()
	}
	if _, f := s.Restore(ctx, job); f == nil {
		t.Error("a cancelled restore succeeded")
	}
	outside := t.TempDir()
	err := errors.Join(os.WriteFile(filepath.Join(dir, "rows"), []byte("half"), 0o600), os.Mkdir(filepath.Join(dir, "more"), 0o500),
		os.WriteFile(filepath.Join(outside, "kept"), []byte("kept"), 0o600), os.Symlink(outside, filepath.Join(dir, "out")))
	if err != nil {
		t.Fatal(err)
	}
	if _, f := s.Restore(t.Context(), s.restoration("", dir)); f != nil {
		t.Fatal(f)
	}
	has(t, dir, "rows", "1")
	has(t, outside, "kept", "kept")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("restored %v, %v", entries, err)
	}
}
