package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/backup"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// restoring fills the volumes that the server wants to be restored from backups, each once. Invariants:
//
//   - A volume that an assignment of this node uses, that a project of this node has used, or that a container mounts is never
//     changed: its data may be newer than the backup.
//   - A volume counts as restored only after its data was verified, is on disk, and the record on disk says so. Until then,
//     every attempt begins with an empty volume. Afterwards nothing is changed in it.
//   - When an assignment uses the volume, or the server ends the restore, nothing writes to the volume any more before that
//     message has any other effect.
type restoring struct {
	cfg         Config
	log         *slog.Logger
	assignments *assignments
	disk        *disk
	inventory   *inventory
	backups     *backups // whose runner and slots it uses
	wake        chan struct{}

	mu   sync.Mutex
	jobs map[string]*restoreJob // by uid
}

// restoreJob is one volume to restore.
type restoreJob struct {
	uid     string
	running sync.WaitGroup // of the goroutine that restores it

	// Guarded by restoring.mu.
	ended   context.CancelFunc
	request *carav1.RestoreVolume // the newest
	started bool
	state   *carav1.RestoredVolume // immutable; nil before the first attempt
}

func newRestoring(cfg Config, log *slog.Logger, a *assignments, d *disk, i *inventory, b *backups) *restoring {
	r := &restoring{
		cfg: cfg, log: log, assignments: a, disk: d, inventory: i, backups: b, wake: make(chan struct{}, 1),
		jobs: map[string]*restoreJob{},
	}
	b.restores = r.busy
	return r
}

// ask requests a restore. A request for a volume that is known only brings newer values of the Secret.
func (r *restoring) ask(q *carav1.RestoreVolume) {
	if !validRestore(q) {
		r.log.Error("refused to restore a volume: the server sent no valid name", "uid", q.GetUid())
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if job := r.jobs[q.GetUid()]; job != nil {
		job.request = q
		return
	}
	r.jobs[q.GetUid()] = &restoreJob{uid: q.GetUid(), request: q, ended: func() {}}
	kick(r.wake)
}

// validRestore reports whether names from the server can be part of file names and of names in the engine.
func validRestore(q *carav1.RestoreVolume) bool {
	names := []string{q.GetProject(), q.GetName(), q.GetFromProject(), q.GetFromVolume(), q.GetUid()}
	invalid := func(name string) bool { return !api.IsName(name) }
	return !slices.ContainsFunc(names, invalid) && len(q.GetUid()) <= maxUID && len(q.GetOwner()) <= maxOwner
}

// synced ends the list: the restores that it does not name have ended. Until then, what the server of the last connection asked for
// continues. named has the uids.
func (r *restoring) synced(named map[string]bool) {
	r.mu.Lock()
	jobs := maps.Clone(r.jobs)
	r.mu.Unlock()
	for uid := range jobs {
		if !named[uid] {
			r.end(uid)
		}
	}
	if err := r.disk.keepRestores(named); err != nil {
		r.log.Warn("the record of a restore was not removed", "error", err)
	}
}

// end ends a restore, and returns when nothing writes to the volume any more.
func (r *restoring) end(uid string) {
	r.mu.Lock()
	job := r.jobs[uid]
	delete(r.jobs, uid)
	if job != nil {
		job.ended()
	}
	r.mu.Unlock()
	if job == nil {
		return
	}
	job.running.Wait()
	r.inventory.setRestored(uid, nil)
	if err := r.disk.removeRestore(uid); err != nil {
		r.log.Warn("the record of a restore was not removed", "uid", uid, "error", err)
	}
}

// busy reports whether data of a project's backups is being restored here.
func (r *restoring) busy(project string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, job := range r.jobs {
		if job.request.GetFromProject() == project && !final(job.state) {
			return true
		}
	}
	return false
}

// final reports whether a restore has a result.
func final(state *carav1.RestoredVolume) bool {
	return state.GetState() == api.VolumeRestored || state.GetState() == api.VolumeRestoreFailed
}

// run restores volumes until ctx ends.
func (r *restoring) run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		r.mu.Lock()
		for _, job := range r.jobs {
			if job.started {
				continue
			}
			jobCtx, ended := context.WithCancel(ctx)
			job.started, job.ended = true, ended
			job.running.Add(1)
			running.Go(func() {
				defer job.running.Done()
				defer ended()
				r.restore(jobCtx, job)
			})
		}
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
	}
}

// restore carries out one restore until it has a result.
func (r *restoring) restore(ctx context.Context, job *restoreJob) {
	backoff, begun := loop.NewBackoff(restoreRetry, r.cfg.MaxBackoff), time.Now()
	for ctx.Err() == nil {
		state, err := r.attempt(ctx, job)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			r.finish(ctx, job, state)
			return
		}
		q := r.request(job)
		message := restoreText(q, err)
		r.log.Warn("a restore has made no progress", "volume", api.VolumeName(q.GetProject(), q.GetName()), "uid", job.uid, "error", message)
		if failed := restoreResult(err, time.Since(begun)); failed != nil {
			failed.Message = message
			r.finish(ctx, job, failed)
			return
		}
		r.set(job, &carav1.RestoredVolume{State: api.VolumeRestoring, Message: message + "; it is tried again"})
		backoff.Wait(ctx)
	}
}

const (
	// restoreRetry is the wait before the second attempt.
	restoreRetry = 200 * time.Millisecond
	// restorePatience is how long a restore is tried while its repository is locked or cannot be reached.
	restorePatience = 5 * time.Minute
)

// restoreResult returns the result after an attempt that failed, or nil if it is tried again: what the engine or the disk did
// not do is tried until the server ends the restore.
func restoreResult(err error, tried time.Duration) *carav1.RestoredVolume {
	f, ok := errors.AsType[*backup.Failure](err)
	if !ok {
		return nil
	}
	switch f.Reason {
	case api.ReasonRepositoryLocked, api.ReasonRepositoryUnreachable:
		if tried < restorePatience {
			return nil
		}
	}
	return &carav1.RestoredVolume{State: api.VolumeRestoreFailed, Reason: string(f.Reason)}
}

// finish keeps the result on disk, and then tells it. A failure is told in any case: if it is lost, the next agent only tries
// again.
func (r *restoring) finish(ctx context.Context, job *restoreJob, state *carav1.RestoredVolume) {
	backoff := loop.NewBackoff(restoreRetry, r.cfg.MaxBackoff)
	for {
		err := r.disk.saveRestore(job.uid, state)
		if err == nil || ctx.Err() != nil || state.GetState() == api.VolumeRestoreFailed {
			break
		}
		r.log.Warn("the result of a restore cannot be kept yet", "uid", job.uid, "error", err)
		backoff.Wait(ctx)
	}
	if ctx.Err() == nil {
		r.log.Info("a restore has ended", "uid", job.uid, "state", state.GetState(), "reason", state.GetReason(), "snapshot", state.GetSnapshot())
		r.set(job, state)
	}
}

// request returns the newest request of a job.
func (r *restoring) request(job *restoreJob) *carav1.RestoreVolume {
	r.mu.Lock()
	defer r.mu.Unlock()
	return job.request
}

// set changes the state of a job, and tells the server.
func (r *restoring) set(job *restoreJob, state *carav1.RestoredVolume) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell(job, state)
}

// change changes a copy of the state of a job, and tells the server.
func (r *restoring) change(job *restoreJob, change func(*carav1.RestoredVolume)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := &carav1.RestoredVolume{State: api.VolumeRestoring}
	if job.state != nil {
		state = proto.CloneOf(job.state)
	}
	change(state)
	r.tell(job, state)
}

// tell changes the state of a job, and tells the server: the states in their order. mu is held.
func (r *restoring) tell(job *restoreJob, state *carav1.RestoredVolume) {
	job.state = state
	r.inventory.setRestored(job.uid, state)
	if final(state) {
		kick(r.backups.wake)
	}
}
