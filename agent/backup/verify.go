package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/caravanserai/cara/agent/confine"
	"github.com/caravanserai/cara/agent/volume"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Verify restores the snapshots of a backup to a scratch directory, one after the other, and compares them. Every byte is read
// from the repository and checked against its hash; the restored bytes are counted; and each file that has not changed in the
// volume since then must be equal there.
func (r *Runner) Verify(ctx context.Context, job Job, snapshots []*carav1.BackupSnapshot) *Failure {
	s, f := r.open(job.Values, confine.Access{Link: []string{r.scratch(job.Project)}})
	if f != nil {
		return f
	}
	defer s.close()
	for _, snapshot := range snapshots {
		if f := r.verify(ctx, s, job, snapshot); f != nil {
			return f
		}
	}
	return nil
}

func (r *Runner) verify(ctx context.Context, s *session, job Job, snapshot *carav1.BackupSnapshot) (f *Failure) {
	doing := "verifying snapshot " + snapshot.GetId() + " of volume " + snapshot.GetVolume()
	dir := r.scratch(job.Project)
	defer func() {
		if err := os.RemoveAll(dir); err != nil && f == nil {
			f = fail(api.ReasonBackupFailed, "%s: remove the scratch directory: %v", doing, err)
		}
	}()
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return fail(api.ReasonBackupFailed, "%s: make the scratch directory: %v", doing, err)
	}
	if free, err := volume.FreeSpace(dir); err == nil && free < snapshot.GetBytes()+snapshot.GetBytes()/10 {
		return fail(api.ReasonBackupFailed, "%s: it needs %d MiB of free space in the agent's data directory, and there are %d MiB: make room, or set spec.backup.verify to \"\"",
			doing, (snapshot.GetBytes()+snapshot.GetBytes()/10)>>20, free>>20)
	}
	if !isID(snapshot.GetId()) {
		return fail(api.ReasonBackupFailed, "%s: this is no id of a snapshot: make a new backup", doing)
	}
	if _, f := s.do(ctx, longLimit, r.Dir, doing, "restore", "--verify", "--target", dir, snapshot.GetId()); f != nil {
		return f
	}
	total, err := compare(ctx, dir, livePath(job.Volumes, snapshot))
	switch {
	case err != nil:
		return fail(api.ReasonRepositoryCorrupted, "%s: %v", doing, err)
	case total != snapshot.GetBytes():
		return fail(api.ReasonRepositoryCorrupted, "%s: %d bytes were backed up, and %d were restored: run restic check, and make a new backup", doing, snapshot.GetBytes(), total)
	}
	return nil
}

// livePath returns the parent of the directory of the snapshot's volume, or "" if the project has another volume by now.
func livePath(volumes []Volume, snapshot *carav1.BackupSnapshot) string {
	for _, v := range volumes {
		if v.Name == snapshot.GetVolume() && v.UID == snapshot.GetUid() {
			return filepath.Dir(v.Path)
		}
	}
	return ""
}

// compare adds up the sizes of the restored files, and compares each with the file in the volume if that has the same size and
// the same time of change. It never leaves either directory, whatever a container does in the volume meanwhile.
func compare(ctx context.Context, restored, live string) (total int64, err error) {
	copied, err := os.OpenRoot(restored)
	if err != nil {
		return 0, err
	}
	defer copied.Close()
	var origin *os.Root
	if live != "" {
		if origin, err = os.OpenRoot(live); err != nil {
			return 0, err
		}
		defer origin.Close()
	}
	err = fs.WalkDir(copied.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		total += info.Size()
		if origin != nil && differs(copied, origin, path, info) {
			return fmt.Errorf("the file %q differs from the one in the volume, which has not changed since the backup", path)
		}
		return nil
	})
	return total, err
}

// differs reports whether a file of the volume is as old as its copy and has other content. A file that cannot be read, or that
// changes meanwhile, is not compared.
func differs(copied, origin *os.Root, path string, info fs.FileInfo) bool {
	same := func() bool {
		now, err := origin.Lstat(path)
		return err == nil && now.Mode().IsRegular() && now.Size() == info.Size() && now.ModTime().Equal(info.ModTime())
	}
	if !same() {
		return false
	}
	a, errA := copied.Open(path)
	if errA != nil {
		return true
	}
	defer a.Close()
	b, errB := origin.Open(path)
	if errB != nil {
		return false
	}
	defer b.Close()
	return !equal(a, b) && same()
}

func equal(a, b io.Reader) bool {
	const size = 256 << 10
	x, y := make([]byte, size), make([]byte, size)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			return false
		}
		if errA != nil || errB != nil {
			return true
		}
	}
}
