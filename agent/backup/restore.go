package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/caravanserai/cara/agent/confine"
	"github.com/caravanserai/cara/agent/volume"
	"github.com/caravanserai/cara/api"
)

// Restoration is one volume to fill from a project's backups.
type Restoration struct {
	// Project and Volume are those that the snapshots were made of.
	Project, Volume string
	// Snapshot is the id of a snapshot, long or short. Empty means the newest one.
	Snapshot string
	Values   map[string][]byte // of the Secret
	// Path is the directory to fill. Everything in it is removed first.
	Path string
	// Chosen is called with the snapshot before anything in the directory is changed. Optional.
	Chosen func(Snapshot)
}

// Snapshot is one copy of a volume in a repository.
type Snapshot struct {
	ID   string
	Time time.Time
	// Bytes are the sizes of all files. A file with several names counts once.
	Bytes int64
}

// Restore fills a directory with one snapshot. It never reads a snapshot of another project or volume, and it changes nothing
// outside of the directory. If it succeeds, restic has compared every restored file with the repository, the size and the owner of
// the directory are those of the snapshot, and everything is on disk. If it fails, the directory is empty, except when ctx ends:
// then it has a part of the data.
func (r *Runner) Restore(ctx context.Context, job Restoration) (Snapshot, *Failure) {
	s, f := r.open(job.Values, confine.Access{Link: []string{job.Path}})
	if f != nil {
		return Snapshot{}, f
	}
	defer s.close()
	found, f := s.choose(ctx, r.Dir, job)
	if f != nil {
		return Snapshot{}, f
	}
	snapshot := Snapshot{ID: found.ID, Time: found.Time}
	doing := "restoring volume " + job.Volume + " from snapshot " + found.short()
	top, f := s.top(ctx, r.Dir, doing, job, found.ID)
	if f == nil {
		snapshot.Bytes, f = s.restoreSize(ctx, r.Dir, doing, found.ID)
	}
	if f != nil {
		return Snapshot{}, f
	}
	if job.Chosen != nil {
		job.Chosen(snapshot)
	}
	if f = s.fill(ctx, r.Dir, doing, job, snapshot, top); f != nil && ctx.Err() == nil {
		if err := empty(job.Path); err != nil {
			f.Message += fmt.Sprintf("; the incomplete data was not removed: %v", err)
		}
	}
	return snapshot, f
}

// choose returns the snapshot to restore. It is the first to use the repository, and it never makes one.
func (s *session) choose(ctx context.Context, dir string, job Restoration) (listed, *Failure) {
	// It needs no lock: nothing but the list is read.
	o := s.run(ctx, openLimit, dir, "snapshots", "--json", "--no-lock", "--host", Host, "--tag", tagProject+job.Project+","+tagVolume+job.Volume)
	if f := judge("opening the repository", o); f != nil {
		if f.Reason == reasonMissing {
			f = fail(api.ReasonSnapshotNotFound, "there is no repository, so there is no backup to restore: check the key repository of the Secret of spec.backup.secretRef")
		}
		return listed{}, f
	}
	list, err := parseListed(o.stdout)
	if err != nil {
		return listed{}, fail(api.ReasonRestoreFailed, "listing snapshots: %v", err)
	}
	return chooseSnapshot(list, job)
}

// top returns the directory of a snapshot. Cara's snapshots have exactly one, with the name of the volume's own directory; any
// other one could write beside it.
func (s *session) top(ctx context.Context, dir, doing string, job Restoration, id string) (node, *Failure) {
	o, f := s.do(ctx, shortLimit, dir, doing, "ls", "--json", id, "/")
	if f != nil {
		return node{}, f
	}
	nodes := parseNodes(o.stdout)
	want := "/" + filepath.Base(job.Path)
	if len(nodes) != 1 || nodes[0].Path != want || nodes[0].Kind != "dir" {
		return node{}, fail(api.ReasonRestoreFailed, "%s: it does not contain exactly one directory %s, so it is no backup of a volume by Cara: "+
			"restore it with restic, and copy the files", doing, want)
	}
	return nodes[0], nil
}

func (s *session) restoreSize(ctx context.Context, dir, doing, id string) (int64, *Failure) {
	o, f := s.do(ctx, longLimit, dir, doing, "stats", "--json", "--mode", "restore-size", id)
	if f != nil {
		return 0, f
	}
	bytes, err := parseSize(o.stdout)
	if err != nil {
		return 0, fail(api.ReasonRestoreFailed, "%s: %v", doing, err)
	}
	return bytes, nil
}

// fill replaces the content of the directory by the snapshot.
func (s *session) fill(ctx context.Context, dir, doing string, job Restoration, snapshot Snapshot, top node) *Failure {
	if err := empty(job.Path); err != nil {
		return fail(api.ReasonVolumeUnreadable, "%s: empty the volume's directory: %v; the agent must run on the engine's machine, as root", doing, err)
	}
	need := snapshot.Bytes + snapshot.Bytes/10
	if free, err := volume.FreeSpace(job.Path); err == nil && free < need {
		return fail(api.ReasonDiskFull, "%s: it needs %d MiB of free space on the disk of the node's engine, and there are %d MiB: make room there, or restore on another node",
			doing, mib(need), free>>20)
	}
	o, f := s.do(ctx, longLimit, dir, doing, "restore", "--verify", "--target", filepath.Dir(job.Path), snapshot.ID)
	if f != nil && f.Reason == api.ReasonRepositoryFull {
		return fail(api.ReasonDiskFull, "%s: the disk of the node's engine is full: make room there, or restore on another node (restic: %s)", doing, lastLine(o.stderr))
	}
	if f != nil {
		return f
	}
	total, err := sum(ctx, job.Path)
	if err == nil {
		err = top.matches(job.Path)
	}
	switch {
	case err != nil:
		return fail(api.ReasonRestoreFailed, "%s: %v", doing, err)
	case total != snapshot.Bytes:
		return fail(api.ReasonRepositoryCorrupted, "%s: the snapshot has %d bytes, and %d were restored: run restic check, or restore another snapshot",
			doing, snapshot.Bytes, total)
	}
	if err := syncDir(job.Path); err != nil {
		return fail(api.ReasonRestoreFailed, "%s: write the data to disk: %v", doing, err)
	}
	return nil
}

// mib rounds up.
func mib(bytes int64) int64 { return (bytes + 1<<20 - 1) >> 20 }

// empty removes everything in a directory. It never follows a symbolic link.
func empty(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := root.RemoveAll(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// sum adds up the sizes of all files in a directory. A file with several names counts once.
func sum(ctx context.Context, dir string) (total int64, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	links := map[uint64]bool{} // inodes of files with several names
	err = fs.WalkDir(root.FS(), ".", func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil || !entry.Type().IsRegular() {
			return errors.Join(err, ctx.Err())
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); st.Nlink > 1 {
			if links[st.Ino] {
				return nil
			}
			links[st.Ino] = true
		}
		total += info.Size()
		return nil
	})
	return total, err
}

// matches returns an error if a directory has another owner or mode than in the snapshot.
func (n node) matches(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if info.Mode() != n.Mode || st.Uid != n.UID || st.Gid != n.GID {
		return fmt.Errorf("the volume's directory has mode %s and owner %d:%d, and in the snapshot %s and %d:%d: the agent must run as root",
			info.Mode(), st.Uid, st.Gid, n.Mode, n.UID, n.GID)
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(volume.SyncFileSystem(f), f.Close())
}
