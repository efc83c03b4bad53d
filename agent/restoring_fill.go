package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/agent/backup"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/volume"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/scrub"
	"github.com/caravanserai/cara/internal/text"
)

// attempt restores a volume once. It returns the result, or an error; see restoreResult. The volume exists in the engine before
// anything can fail for good, because only the inventory tells the server about it.
func (r *restoring) attempt(ctx context.Context, job *restoreJob) (*carav1.RestoredVolume, error) {
	q := r.request(job)
	if kept := r.disk.loadRestore(job.uid); kept != nil {
		if _, err := r.cfg.Engine.InspectVolume(ctx, nameInEngine(q)); !errors.Is(err, engine.ErrNotFound) {
			return kept, err
		}
		// Somebody has removed the volume since, and no project has used it.
		if err := r.disk.removeRestore(job.uid); err != nil {
			return nil, err
		}
	}
	release, err := r.backups.slot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := r.mayFill(ctx, q); err != nil {
		return nil, err
	}
	labels := r.cfg.node().VolumeLabels(q.GetProject(), q.GetName(), job.uid, q.GetOwner())
	if err := r.cfg.Engine.CreateVolume(ctx, nameInEngine(q), labels); err != nil {
		return nil, fmt.Errorf("create the volume %s: %w", nameInEngine(q), err)
	}
	r.change(job, func(s *carav1.RestoredVolume) { s.State = api.VolumeRestoring })
	r.inventory.look()
	dir, err := dataDir(ctx, r.cfg.Engine, nameInEngine(q), job.uid)
	switch {
	case volume.IsFinal(err):
		return nil, &backup.Failure{Reason: api.ReasonVolumeUnreadable, Message: err.Error()}
	case err != nil:
		return nil, err
	case q.GetProblem() != "":
		return nil, &backup.Failure{Reason: api.ReasonBackupSecret, Message: q.GetProblem()}
	}
	return r.fill(ctx, job, q, dir)
}

// mayFill returns an error if the volume may have newer data than the backup. That happens if the server was restored from a
// backup that was made during the restore.
func (r *restoring) mayFill(ctx context.Context, q *carav1.RestoreVolume) error {
	container, err := mounted(ctx, r.cfg.Engine, r.cfg.node(), q.GetProject(), nameInEngine(q))
	if err != nil {
		return fmt.Errorf("look for containers that mount the volume %s: %w", nameInEngine(q), err)
	}
	if container == "" && !r.assignments.holds(q.GetUid()) && !r.disk.isUsed(q.GetUid()) {
		return nil
	}
	return &backup.Failure{Reason: api.ReasonVolumeInUse, Message: fmt.Sprintf(
		"project %s has used the volume %s already, so its data on this node may be newer than the backup; it is not overwritten", q.GetProject(), nameInEngine(q))}
}

// fill restores the data.
func (r *restoring) fill(ctx context.Context, job *restoreJob, q *carav1.RestoreVolume, dir string) (*carav1.RestoredVolume, error) {
	measuring, stop := context.WithCancel(ctx)
	measured := make(chan struct{})
	go func() {
		defer close(measured)
		r.measure(measuring, job, dir)
	}()
	snapshot, f := r.backups.runner.Restore(ctx, backup.Restoration{
		Project: q.GetFromProject(), Volume: q.GetFromVolume(), Snapshot: q.GetSnapshot(), Values: q.GetValues(), Path: dir,
		Chosen: func(s backup.Snapshot) {
			r.change(job, func(v *carav1.RestoredVolume) {
				v.Snapshot, v.Time, v.Bytes, v.Message = s.ID, timestamppb.New(s.Time), s.Bytes, ""
			})
		},
	})
	stop()
	<-measured
	if f != nil {
		return nil, f
	}
	return &carav1.RestoredVolume{
		State: api.VolumeRestored, Snapshot: snapshot.ID, Time: timestamppb.New(snapshot.Time), Bytes: snapshot.Bytes, BytesDone: snapshot.Bytes,
	}, nil
}

// measure tells how much of the data is restored, until ctx ends.
func (r *restoring) measure(ctx context.Context, job *restoreJob, dir string) {
	wait := progressEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		begun := time.Now()
		now, err := sizeOf(ctx, dir)
		if err == nil && ctx.Err() == nil {
			r.change(job, func(s *carav1.RestoredVolume) { s.BytesDone = min(now.bytes, s.GetBytes()) })
		}
		wait = max(progressEvery, 10*time.Since(begun)) // many files take long to look at
	}
}

// maxRestoreMessage is the maximum length of the message of a restored volume, from the API contract.
const maxRestoreMessage = 4000

// restoreText returns the text of an error without values of the Secret.
func restoreText(q *carav1.RestoreVolume, err error) string {
	var values [][]byte
	for _, value := range q.GetValues() {
		values = append(values, value)
	}
	hidden := scrub.New(values, []string{q.GetProject(), q.GetName(), q.GetFromProject(), q.GetFromVolume()})
	return text.Clip(text.Line(hidden.Text(err.Error())), maxRestoreMessage)
}

// slot waits until a backup or a restore may run. release ends its turn.
func (b *backups) slot(ctx context.Context) (release func(), err error) {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return func() {
		<-b.slots
		kick(b.wake)
	}, nil
}

const restoresDir = "restores"

func (d *disk) restorePath(uid string) string { return filepath.Join(d.dir, restoresDir, uid+".json") }

// loadRestore returns the result of a restore, or nil if there is none.
func (d *disk) loadRestore(uid string) *carav1.RestoredVolume {
	state := &carav1.RestoredVolume{}
	data, err := os.ReadFile(d.restorePath(uid))
	if err != nil || len(data) > maxAssignment || (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, state) != nil || !final(state) {
		return nil
	}
	return state
}

func (d *disk) saveRestore(uid string, state *carav1.RestoredVolume) error {
	data, err := protojson.Marshal(state)
	return d.write(d.restorePath(uid), data, err)
}

func (d *disk) removeRestore(uid string) error {
	if err := os.Remove(d.restorePath(uid)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// keepRestores removes the results of all restores except those of the given volumes.
func (d *disk) keepRestores(uids map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(d.dir, restoresDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if uid, ok := strings.CutSuffix(e.Name(), ".json"); ok && !uids[uid] {
			errs = append(errs, d.removeRestore(uid))
		}
	}
	return errors.Join(errs...)
}
