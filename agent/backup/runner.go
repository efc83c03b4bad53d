package backup

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/confine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Runner makes backups and checks them.
type Runner struct {
	// Dir is a directory of the agent's own: restic's cache, and the scratch space of verifications.
	Dir string
	// Dirs are the directories below which a repository may be on this node.
	Dirs []string
	// Restic is the path of restic. Empty means that it is searched for.
	Restic string
	// Environ is the agent's environment, of which restic gets a few variables.
	Environ []string
	// PauseLimit is how long the containers may be paused. The default is 5 min.
	PauseLimit time.Duration
}

// Job is one backup.
type Job struct {
	Project string
	Volumes []Volume
	Spec    *carav1.Backup
	Values  map[string][]byte // of the Secret
}

// Containers are those of the project.
type Containers interface {
	// Exec runs a command in a service, and returns its exit code and the end of its output.
	Exec(ctx context.Context, service string, command []string) (code int, output string, err error)
	// Pause pauses all running containers. If it fails, some may be paused.
	Pause(ctx context.Context) error
	// Resume resumes the paused containers.
	Resume(ctx context.Context) error
}

// Result is what a backup did.
type Result struct {
	// Taken is the time that the data is of.
	Taken     time.Time
	Snapshots []*carav1.BackupSnapshot
	Pause     time.Duration
	// Warning is a problem after the data was safe, such as old snapshots that could not be removed.
	Warning *Failure
}

// defaultPauseLimit is how long the containers may be paused.
const defaultPauseLimit = 5 * time.Minute

// cleanupLimit is how long a backup that ends may take for what it must do in any case.
const cleanupLimit = time.Minute

// Run makes a backup: a first pass while the project runs, and a second one while it is paused, so that the pause depends on
// what changed in between. It returns a Result or a Failure.
func (r *Runner) Run(ctx context.Context, job Job, c Containers) (*Result, *Failure) {
	for _, v := range job.Volumes {
		if info, err := os.Stat(v.Path); err != nil || v.Path == "" || !info.IsDir() {
			return nil, fail(api.ReasonVolumeUnreadable, "the data of volume %s cannot be read from where the agent runs: the agent must run on the engine's machine, as root", v.Name)
		}
	}
	s, f := r.open(job.Values, confine.Access{Read: paths(job.Volumes)})
	if f != nil {
		return nil, f
	}
	defer s.close()
	if f := s.prepare(ctx, r.Dir); f != nil {
		return nil, f
	}
	result, f := r.hooked(ctx, s, job, c)
	if f == nil {
		result.Warning = s.tidy(ctx, r.Dir, job)
	}
	return result, f
}

// paths returns the directories of volumes.
func paths(volumes []Volume) []string {
	out := make([]string, len(volumes))
	for i, v := range volumes {
		out[i] = v.Path
	}
	return out
}

// hooked runs the hooks around the passes. The second hook runs whenever the first one has begun.
func (r *Runner) hooked(ctx context.Context, s *session, job Job, c Containers) (result *Result, f *Failure) {
	hooks := job.Spec.GetHooks()
	if after := hooks.GetAfter(); after != nil {
		defer func() {
			limit := api.HookTimeout(after)
			if ctx.Err() != nil { // the agent may be stopping
				limit = min(limit, cleanupLimit)
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
			defer cancel()
			if failed := runHook(ctx, "after", after, c); failed != nil && f == nil {
				result, f = nil, failed
			}
		}()
	}
	if before := hooks.GetBefore(); before != nil {
		if f := runHook(ctx, "before", before, c); f != nil {
			return nil, f
		}
	}
	return r.passes(ctx, s, job, c)
}

// maxHookOutput limits what is quoted of a hook's output.
const maxHookOutput = 1000

func runHook(ctx context.Context, name string, h *carav1.BackupHook, c Containers) *Failure {
	ctx, cancel := context.WithTimeout(ctx, api.HookTimeout(h))
	defer cancel()
	code, output, err := c.Exec(ctx, h.GetService(), h.GetCommand())
	switch {
	case ctx.Err() != nil:
		return fail(api.ReasonHookFailed, "the hook %s in service %s did not end within %s: raise its timeout, or correct the command", name, h.GetService(), api.HookTimeout(h))
	case err != nil:
		return fail(api.ReasonHookFailed, "the hook %s cannot run in service %s: %v", name, h.GetService(), err)
	case code != 0:
		return fail(api.ReasonHookFailed, "the hook %s in service %s ended with code %d: %s", name, h.GetService(), code,
			output[max(0, len(output)-maxHookOutput):])
	}
	return nil
}

// passes copies the data. Without a pause, one pass is enough.
func (r *Runner) passes(ctx context.Context, s *session, job Job, c Containers) (*Result, *Failure) {
	if !api.BackupPauses(job.Spec) {
		taken := time.Now()
		snapshots, f := s.pass(ctx, longLimit, job, nil, false)
		return &Result{Taken: taken, Snapshots: snapshots}, f
	}
	first, f := s.pass(ctx, longLimit, job, nil, true)
	if f != nil {
		return nil, f
	}
	return r.paused(ctx, s, job, c, first)
}

// paused makes the second pass. It resumes the containers in any case, also if ctx has ended.
func (r *Runner) paused(ctx context.Context, s *session, job Job, c Containers, first []*carav1.BackupSnapshot) (result *Result, f *Failure) {
	limit := cmp.Or(r.PauseLimit, defaultPauseLimit)
	pausing, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begun := time.Now()
	defer func() {
		resuming, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
		defer cancel()
		err := c.Resume(resuming)
		if result != nil {
			result.Pause = time.Since(begun)
		}
		if err != nil && f == nil {
			result, f = nil, fail(api.ReasonPauseFailed, "the containers could not all be resumed, the agent tries again: %v", err)
		}
	}()
	if err := c.Pause(pausing); err != nil {
		return nil, fail(api.ReasonPauseFailed, "the containers could not be paused: %v", err)
	}
	taken := time.Now()
	snapshots, f := s.pass(pausing, limit, job, first, false)
	if f != nil && ctx.Err() == nil && pausing.Err() != nil {
		f = fail(api.ReasonPauseFailed, "copying what changed took longer than %s, so the containers were resumed: back up when less changes, or set spec.backup.pause to false", limit)
	}
	if f != nil {
		return nil, f
	}
	return &Result{Taken: taken, Snapshots: snapshots}, nil
}

// pass makes a snapshot of each volume. Files that cannot be read are tolerated in the first pass: they may have been removed
// meanwhile. If a volume fails in the last pass, the snapshots of the others are removed: they would look complete.
func (s *session) pass(ctx context.Context, limit time.Duration, job Job, parents []*carav1.BackupSnapshot, first bool) ([]*carav1.BackupSnapshot, *Failure) {
	var made []*carav1.BackupSnapshot
	for i, v := range job.Volumes {
		var parent *carav1.BackupSnapshot // of the first pass
		if i < len(parents) {
			parent = parents[i]
		}
		o, f := s.do(ctx, limit, filepath.Dir(v.Path), "copying volume "+v.Name, backupArgs(job.Project, v, parent.GetId(), first)...)
		if f != nil && first && o.code == exitIncomplete {
			f = nil
		}
		sum, ok := parseSummary(o.stdout)
		if f == nil && !ok {
			f = fail(api.ReasonBackupFailed, "copying volume %s: restic did not name its snapshot: %s", v.Name, lastLine(o.stderr))
		}
		if f != nil {
			if ok {
				made = append(made, &carav1.BackupSnapshot{Id: sum.Snapshot})
			}
			s.discard(ctx, v.Path, made)
			return nil, f
		}
		made = append(made, &carav1.BackupSnapshot{Volume: v.Name, Uid: v.UID, Id: sum.Snapshot, Bytes: sum.Bytes, AddedBytes: parent.GetAddedBytes() + sum.Added})
	}
	return made, nil
}

// discard removes snapshots of a backup that failed, as far as possible.
func (s *session) discard(ctx context.Context, dir string, made []*carav1.BackupSnapshot) {
	if len(made) == 0 {
		return
	}
	ids := make([]string, len(made))
	for i, m := range made {
		ids[i] = m.GetId()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
	defer cancel()
	s.run(ctx, cleanupLimit, filepath.Dir(dir), removeArgs(ids)...)
}

// tidy removes the snapshots of first passes, also those of backups that failed, and then those that no rule keeps.
func (s *session) tidy(ctx context.Context, dir string, job Job) *Failure {
	// Those that were made while the project ran.
	o, f := s.do(ctx, shortLimit, dir, "listing snapshots", "snapshots", "--json", "--host", Host, "--tag", tagProject+job.Project+","+tagFirst)
	if f != nil {
		return f
	}
	left, err := parseIDs(o.stdout)
	if err != nil {
		return fail(api.ReasonBackupFailed, "listing snapshots: %v", err)
	}
	for chunk := range slices.Chunk(left, 100) {
		if _, f := s.do(ctx, shortLimit, dir, "removing snapshots of first passes", removeArgs(chunk)...); f != nil {
			return f
		}
	}
	for _, v := range job.Volumes {
		if args := keepArgs(job.Project, v.Name, job.Spec.GetKeep()); args != nil {
			if _, f := s.do(ctx, longLimit, dir, "removing old snapshots of volume "+v.Name, args...); f != nil {
				return f
			}
		}
	}
	return nil
}

// scratch returns the directory for the verification of a project.
func (r *Runner) scratch(project string) string { return filepath.Join(r.Dir, "verify-"+project) }

// Sweep removes what a killed agent has left of verifications, and restic's temporary files. No backup may run.
func (r *Runner) Sweep() error {
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		return nil //nolint:nilerr // without the directory there is nothing to remove
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "verify-") || e.Name() == temporaryDir {
			if err := os.RemoveAll(filepath.Join(r.Dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
