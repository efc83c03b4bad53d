package agent

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/agent/backup"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// backups makes the backups of this node's projects when they are due. Invariants: a project has at most one backup or
// verification at a time; while a backup has paused the containers, the worker leaves the project alone; and no backup runs
// while the project moves or is restored here.
type backups struct {
	cfg         Config
	log         *slog.Logger
	assignments *assignments
	events      *events
	disk        *disk
	runner      *backup.Runner
	wake        chan struct{} // requests a look at all projects
	slots       chan struct{} // limits the backups and restores that run at the same time
	// restores reports whether a project's data is being restored here.
	restores func(project string) bool

	mu    sync.Mutex
	known map[string]*backedUp // by project
	// left are the projects that a backup has left paused.
	left map[string]bool
	// problem is why no project can be backed up here, or nil.
	problem *backup.Failure
}

// backedUp is what is known about the backups of one project.
type backedUp struct {
	uid     string
	status  *carav1.BackupStatus
	running bool
}

const (
	backupsAtOnce = 2
	// backupLook is how often the assignment of a project is compared with the one for which its backup began, and the longest
	// wait before all projects are looked at: a clock may be set.
	backupLook = time.Second
	backupIdle = time.Minute
	// resumeRetry is how often containers are resumed that could not be resumed before.
	resumeRetry = time.Second
)

func newBackups(cfg Config, log *slog.Logger, a *assignments, d *disk, e *events) *backups {
	dir := filepath.Join(cfg.DataDir, "backup")
	return &backups{
		cfg: cfg, log: log, assignments: a, events: e, disk: d, wake: make(chan struct{}, 1), slots: make(chan struct{}, backupsAtOnce),
		runner: &backup.Runner{Dir: dir, Dirs: cfg.BackupDirs, Environ: cfg.Environ, Restic: cfg.Restic},
		known:  map[string]*backedUp{}, left: map[string]bool{},
	}
}

// run looks for backups that are due until ctx ends, and waits for those that run.
func (b *backups) run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	if err := b.findPaused(); err != nil {
		return err
	}
	running.Go(func() { b.resumePaused(ctx) })
	if err := b.runner.Sweep(); err != nil {
		b.log.Warn("the scratch directory of a verification was not removed", "error", err)
	}
	for {
		wait := backupIdle
		assigned := b.assignments.backedUp()
		b.forget(assigned)
		b.check(assigned)
		for _, v := range assigned {
			if again := b.look(ctx, v, &running); !again.IsZero() {
				wait = min(wait, max(time.Until(again), 0)+time.Millisecond)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		case <-time.After(wait):
		}
	}
}

// look decides about one project, and begins what is due. It returns when to look again.
func (b *backups) look(ctx context.Context, a backupAssignment, running *sync.WaitGroup) time.Time {
	restored := b.restores(a.want.Project)
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.find(a)
	kind, status, again := backup.Decide(backup.View{
		Spec: a.want.Spec.GetBackup(), Status: known.status, Token: a.token, Now: time.Now(),
		Busy: known.running || b.left[a.want.Project] || !a.want.HaveSecrets || a.want.Move != nil || a.want.Remove || restored,
	})
	if kind == backup.Nothing {
		b.set(a.want.Project, known, status)
		return again
	}
	select {
	case b.slots <- struct{}{}:
	default:
		return time.Time{} // the end of another one wakes the loop
	}
	b.set(a.want.Project, known, status)
	known.running = true
	running.Go(func() {
		b.carryOut(ctx, kind, a, known, status.GetSnapshots())
		b.mu.Lock()
		known.running = false
		b.mu.Unlock()
		<-b.slots
		kick(b.wake)
	})
	return again
}

// forget drops the projects that have no backups any more.
func (b *backups) forget(assigned []backupAssignment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.known, func(project string, known *backedUp) bool {
		return !known.running && !slices.ContainsFunc(assigned, func(a backupAssignment) bool { return a.want.Project == project })
	})
}

// check looks for what every backup needs, and makes the projects report a change.
func (b *backups) check(assigned []backupAssignment) {
	problem := b.runner.Problem()
	b.mu.Lock()
	changed := (problem == nil) != (b.problem == nil)
	b.problem = problem
	b.mu.Unlock()
	if changed {
		for _, a := range assigned {
			b.assignments.hint(a.want.Project)
		}
	}
}

// find returns what is known about a project. At first that is the newer one of the server's status and the one on disk.
func (b *backups) find(a backupAssignment) *backedUp {
	known := b.known[a.want.Project]
	if known != nil && (known.uid == a.want.UID || known.running) {
		return known
	}
	status := a.status
	if kept := b.disk.loadBackup(a.want.Project, a.want.UID); kept.GetLastDue().AsTime().After(status.GetLastDue().AsTime()) {
		status = kept
	}
	known = &backedUp{uid: a.want.UID, status: backup.Interrupted(status)}
	b.known[a.want.Project] = known
	b.assignments.hint(a.want.Project) // earlier reports had nothing about the backups
	return known
}

// set changes the status of a project: on disk, for the next agent, and in the next report. The caller holds mu.
func (b *backups) set(project string, known *backedUp, status *carav1.BackupStatus) {
	if proto.Equal(known.status, status) {
		return
	}
	known.status = status
	if err := b.disk.saveBackup(project, known.uid, status); err != nil {
		b.log.Warn("the status of a backup was not kept", "project", project, "error", err)
	}
	b.assignments.hint(project)
}

// change changes a copy of the status of a project.
func (b *backups) change(project string, known *backedUp, change func(*carav1.BackupStatus)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	status := proto.CloneOf(known.status)
	change(status)
	b.set(project, known, status)
}

// report returns the status for the next report about a project, and the conditions that warn of missing backups.
func (b *backups) report(want *step.Want, now time.Time) (*carav1.BackupStatus, []*carav1.Condition) {
	spec := want.Spec.GetBackup()
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.known[want.Project]
	if spec == nil || known == nil || known.uid != want.UID {
		return nil, nil
	}
	warnings := []*carav1.Condition{backup.Stale(spec, known.status, now), backup.Blocked(spec, b.cfg.NodeName, b.problem)}
	return known.status, slices.DeleteFunc(warnings, func(c *carav1.Condition) bool { return c == nil })
}

// states returns the status by project.
func (b *backups) states() map[string]*carav1.BackupStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]*carav1.BackupStatus{}
	for project, known := range b.known {
		out[project] = known.status
	}
	return out
}

// carryOut makes or verifies a backup, until the project gets an assignment that it does not fit.
func (b *backups) carryOut(ctx context.Context, kind string, a backupAssignment, known *backedUp, last []*carav1.BackupSnapshot) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go b.cancelIfChanged(ctx, cancel, a.want)
	job, f := b.job(ctx, a)
	if kind == backup.ToVerify {
		if f == nil {
			f = b.runner.Verify(ctx, job, last)
		}
		b.verified(ctx, a.want, known, last, f)
		return
	}
	var result *backup.Result
	begun := time.Now()
	if f == nil {
		result, f = b.runner.Run(ctx, job, b.containers(a.want.Project))
	}
	if f != nil && ctx.Err() != nil {
		f = &backup.Failure{Reason: api.ReasonBackupCancelled, Message: "the agent was stopped, or the project changed during the backup; the backup is tried again"}
	}
	b.ended(context.WithoutCancel(ctx), a.want, known, result, f, time.Since(begun))
}

// cancelIfChanged calls cancel when the project moves, ends or changes.
func (b *backups) cancelIfChanged(ctx context.Context, cancel func(), began *step.Want) {
	ticker := time.NewTicker(backupLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := b.assignments.wanted(began.Project)
		if now == nil || now.UID != began.UID || now.Epoch != began.Epoch || now.Generation != began.Generation || now.Remove || now.Move != nil {
			cancel()
			return
		}
	}
}

// job collects the volumes and the credentials of a project.
func (b *backups) job(ctx context.Context, a backupAssignment) (backup.Job, *backup.Failure) {
	job := backup.Job{Project: a.want.Project, Spec: a.want.Spec.GetBackup(), Values: map[string][]byte{}}
	if a.problem != "" {
		return job, &backup.Failure{Reason: api.ReasonBackupSecret, Message: a.problem}
	}
	for _, key := range api.BackupKeys() {
		if value, ok := a.want.Secrets[job.Spec.GetSecretRef()+"/"+key]; ok {
			job.Values[key] = value
		}
	}
	for _, v := range api.ManagedVolumes(a.want.Spec) {
		uid := a.want.Uses[v.GetName()].GetUid()
		path, err := dataDir(ctx, b.cfg.Engine, api.EngineVolume(a.want.Project, v.GetName(), uid), uid)
		if err != nil {
			return job, &backup.Failure{Reason: api.ReasonVolumeUnreadable, Message: err.Error() + "; see the state of the project"}
		}
		job.Volumes = append(job.Volumes, backup.Volume{Name: v.GetName(), UID: uid, Path: path})
	}
	return job, nil
}

// ended notes the end of a backup, and records an event.
func (b *backups) ended(ctx context.Context, want *step.Want, known *backedUp, result *backup.Result, f *backup.Failure, took time.Duration) {
	log := b.log.With("project", want.Project, "epoch", want.Epoch)
	if f != nil {
		b.failed(ctx, log, want, known, f)
		return
	}
	message := ""
	if result.Warning != nil {
		message = failureText(want, result.Warning)
		log.Warn("old snapshots were not removed", "error", message)
	}
	b.change(want.Project, known, func(s *carav1.BackupStatus) {
		s.State, s.Reason, s.Message = api.BackupSucceeded, "", message
		s.LastSuccess, s.Snapshots = timestamppb.New(result.Taken), result.Snapshots
		s.Duration, s.Pause = durationpb.New(took), durationpb.New(result.Pause)
	})
	log.Info("backed up", "duration", took, "pause", result.Pause)
	b.events.ofProject(ctx, want, api.EventNormal, api.ReasonBackupSucceeded, "backed up "+volumesText(result.Snapshots))
}

// failed records a backup that has failed.
func (b *backups) failed(ctx context.Context, log *slog.Logger, want *step.Want, known *backedUp, f *backup.Failure) {
	message := failureText(want, f)
	log.Warn("backup failed", "reason", string(f.Reason), "error", message)
	b.change(want.Project, known, func(s *carav1.BackupStatus) {
		s.State, s.Reason, s.Message = api.BackupFailed, string(f.Reason), message
	})
	if f.Reason != api.ReasonBackupCancelled { // the agent may be stopping, and must not wait for the server
		b.events.ofProject(ctx, want, api.EventWarning, api.ReasonBackupFailed, message)
	}
}

func volumesText(snapshots []*carav1.BackupSnapshot) string {
	parts := make([]string, len(snapshots))
	for i, s := range snapshots {
		parts[i] = "volume " + s.GetVolume() + " as snapshot " + s.GetId()
	}
	return strings.Join(parts, ", ")
}

// verified notes the result of a verification, and records an event.
func (b *backups) verified(ctx context.Context, want *step.Want, known *backedUp, last []*carav1.BackupSnapshot, f *backup.Failure) {
	if f != nil && ctx.Err() != nil {
		b.change(want.Project, known, func(s *carav1.BackupStatus) { s.LastVerify = s.GetVerified() }) // due again
		return
	}
	ctx = context.WithoutCancel(ctx)
	if f != nil {
		message := failureText(want, f)
		b.log.Warn("backup not verified", "project", want.Project, "epoch", want.Epoch, "reason", string(f.Reason), "error", message)
		b.change(want.Project, known, func(s *carav1.BackupStatus) { s.VerifyMessage = message })
		b.events.ofProject(ctx, want, api.EventWarning, api.ReasonBackupNotVerified, message)
		return
	}
	b.change(want.Project, known, func(s *carav1.BackupStatus) { s.Verified, s.VerifyMessage = s.GetLastVerify(), "" })
	b.events.ofProject(ctx, want, api.EventNormal, api.ReasonBackupVerified, "restored and compared "+volumesText(last))
}

// failureText returns the message of a failure without values of Secrets.
func failureText(want *step.Want, f *backup.Failure) string {
	return text.Clip(text.Line(want.Values.Text(f.Message)), step.MaxMessage)
}
