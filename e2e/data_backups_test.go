package e2e

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

// settleKept is how many kept volumes of a project stay after a settlement.
const settleKept = 2

// request repeats a request until the server answers it. It returns false if the answer is a refusal, for example because the
// project moves just now.
func (w *dataRounds) request(ctx context.Context, p *player, c command, call func(context.Context) (*carav1.Project, error)) (*carav1.Project, bool, error) {
	var got *carav1.Project
	var refused error
	err := testcluster.WaitFor(ctx, "the server answers to "+c.String(), func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		got, err = call(ctx)
		if code := api.Code(err); code == codes.FailedPrecondition || code == codes.NotFound {
			refused, err = err, nil
		}
		return err
	})
	w.tell(p.name, "%s as manifest %d: %.300v", c, p.manifest, refused)
	return got, refused == nil && err == nil, err
}

// awaitProject waits until the project is as wanted, or why is nil.
func (w *dataRounds) awaitProject(ctx context.Context, p *player, what string, why func(*carav1.Project) error) (*carav1.Project, error) {
	var got *carav1.Project
	err := testcluster.WaitFor(ctx, "project "+p.name+" "+what, func(ctx context.Context) (err error) {
		if got, err = w.projects.GetProject(ctx, &carav1.GetRequest{Name: p.name}); err != nil {
			return err
		}
		return why(got)
	})
	return got, err
}

// backUp requests a backup and waits for its end. Faults may end it without success, and with or without a snapshot.
func (w *dataRounds) backUp(ctx context.Context, p *player, c command) error {
	asked, ok, err := w.request(ctx, p, c, func(ctx context.Context) (*carav1.Project, error) {
		return w.projects.BackupProject(ctx, &carav1.BackupProjectRequest{Name: p.name})
	})
	if err != nil || !ok {
		return err
	}
	token := asked.GetStatus().GetBackupToken()
	got, err := w.awaitProject(ctx, p, "is backed up", func(got *carav1.Project) error {
		if b := got.GetStatus().GetBackup(); b.GetToken() != token || b.GetState() == api.BackupRunning {
			return fmt.Errorf("it is %s, its move is %v, its backup is %v and %s was requested", testcluster.Summary(got), got.GetStatus().GetMove(), b, token)
		}
		return nil
	})
	if err != nil {
		return err
	}
	b := got.GetStatus().GetBackup()
	if b.GetState() != api.BackupSucceeded {
		w.tell(p.name, "the backup %s: %s %.300s", b.GetState(), b.GetReason(), b.GetMessage())
		return nil
	}
	if len(b.GetSnapshots()) != 1 || b.GetSnapshots()[0].GetId() == "" {
		return fmt.Errorf("the backup made the snapshots %v, want one", b.GetSnapshots())
	}
	id := api.ShortUID(b.GetSnapshots()[0].GetId())
	p.succeeded(id)
	w.saves.Add(1)
	w.tell(p.name, "backed up as snapshot %s", id)
	return nil
}

// restore requests a restore and waits for its end. If it ends without success, nothing may have changed.
func (w *dataRounds) restore(ctx context.Context, p *player, c command) error {
	var known map[string]*carav1.Volume
	var before *carav1.Project
	err := w.insist(ctx, c, func(ctx context.Context) (err error) {
		if before, err = w.projects.GetProject(ctx, &carav1.GetRequest{Name: p.name}); err == nil {
			known, err = w.volumesByUID(ctx)
		}
		return err
	})
	if err != nil {
		return err
	}
	req := p.restoreRequest(c)
	_, accepted, err := w.request(ctx, p, c, func(ctx context.Context) (*carav1.Project, error) { return w.projects.RestoreProject(ctx, req) })
	if err == nil && c.way == wayCancelled {
		pass(ctx, time.Duration(c.pick)*50*time.Millisecond)
		_, _, err = w.request(ctx, p, c, func(ctx context.Context) (*carav1.Project, error) {
			return w.projects.CancelMove(ctx, &carav1.GetRequest{Name: p.name})
		})
	}
	if err != nil {
		return err
	}
	end, err := w.awaitRestored(ctx, p, restoring(before))
	switch {
	case err != nil:
		return err
	case end == nil && accepted:
		return fmt.Errorf("the restore was accepted, and its condition is still %v", restoring(before))
	case end.GetReason() != api.ReasonRestored:
		w.tell(p.name, "not restored: %.300s", end.GetMessage())
		return nil
	}
	return w.noteRestored(ctx, p, req, api.VolumeUse(before, "data").GetUid(), known)
}

// restoreRequest is the request of a command.
func (p *player) restoreRequest(c command) *carav1.RestoreProjectRequest {
	req := &carav1.RestoreProjectRequest{Name: p.name, Snapshot: p.asked(c)}
	switch c.way {
	case wayVolume, wayOlder:
		req.Volumes = []string{"data"}
	case wayOther:
		p.others++
		req.As = fmt.Sprintf("%s-c%d", p.name, p.others)
	case wayNewest, wayCancelled:
	}
	return req
}

func restoring(p *carav1.Project) *carav1.Condition {
	return api.FindCondition(p.GetStatus().GetConditions(), api.CondRestoring)
}

// awaitRestored waits until a project is not being restored, and returns its condition then; nil if that is still the one from
// before the request.
func (w *dataRounds) awaitRestored(ctx context.Context, p *player, before *carav1.Condition) (*carav1.Condition, error) {
	got, err := w.awaitProject(ctx, p, "is restored or not", func(got *carav1.Project) error {
		if m := got.GetStatus().GetMove(); m.GetRestore() != nil {
			return fmt.Errorf("it is %s, %v, its restore is %v", testcluster.Summary(got), restoring(got), m)
		}
		return nil
	})
	end := restoring(got)
	if err != nil || proto.Equal(end, before) {
		return nil, err
	}
	return end, nil
}

// noteRestored records which data the project has after a restore, or which data is kept for another project. old is the volume
// that the project had, and known are the volumes from before.
func (w *dataRounds) noteRestored(ctx context.Context, p *player, req *carav1.RestoreProjectRequest, old string, known map[string]*carav1.Volume) error {
	var restored *carav1.Volume
	err := w.insist(ctx, command{verb: verbBack}, func(ctx context.Context) error {
		volumes, err := w.volumesByUID(ctx)
		for uid, v := range volumes {
			if v.GetStatus().GetRestoredFrom().GetProject() == p.name && known[uid] == nil && v.GetStatus().GetState() != api.VolumeDeleting {
				restored = v
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	id := api.ShortUID(restored.GetStatus().GetRestoredFrom().GetSnapshot())
	snapshot, err := p.of(req.GetSnapshot(), id)
	if err != nil {
		return err
	}
	w.restores.Add(1)
	w.tell(p.name, "restored %s from snapshot %s", restored.GetMetadata().GetName(), id)
	if req.GetAs() == "" {
		p.restored(snapshot, old)
		p.restarts = true
		return nil
	}
	if name := api.VolumeName(req.GetAs(), "data"); restored.GetMetadata().GetName() != name {
		return fmt.Errorf("the restored volume is %s, want %s", restored.GetMetadata().GetName(), name)
	}
	p.kept = append(p.kept, keptVolume{restored.GetMetadata().GetUid(), snapshot})
	return nil
}

func (w *dataRounds) volumesByUID(ctx context.Context) (map[string]*carav1.Volume, error) {
	list, err := w.volumes.ListVolumes(ctx, &carav1.ListVolumesRequest{})
	out := map[string]*carav1.Volume{}
	for _, v := range list.GetItems() {
		out[v.GetMetadata().GetUid()] = v
	}
	return out, err
}

// restarted returns an error while a project may still run on the data from before its restore: a command in its container
// would write there.
func (w *dataRounds) restarted(ctx context.Context, p *player) error {
	if !p.restarts {
		return nil
	}
	got, err := w.projects.GetProject(ctx, &carav1.GetRequest{Name: p.name})
	if err == nil && !testcluster.Runs(got) {
		err = fmt.Errorf("it is %s after its restore", testcluster.Summary(got))
	}
	p.restarts = err != nil
	return err
}

// checkKept checks the kept volumes of a project, and deletes the oldest ones.
func (w *dataRounds) checkKept(ctx context.Context, p *player, volumes map[string]*carav1.Volume) error {
	w.Helper()
	byUID := map[string]*carav1.Volume{}
	for _, v := range volumes {
		byUID[v.GetMetadata().GetUid()] = v
	}
	for _, kept := range p.kept {
		v := byUID[kept.uid]
		if v.GetStatus().GetState() != api.VolumeRetained || !v.GetStatus().GetMade() {
			return fmt.Errorf("the volume %s must be Retained, and it is %v", kept.uid, v)
		}
		found, err := w.filesIn(ctx, w.nodes[v.GetStatus().GetNode()], inEngine(v))
		if err != nil {
			return fmt.Errorf("read the volume %s: %w", v.GetMetadata().GetName(), err)
		}
		for _, problem := range kept.wrong(found) {
			w.Errorf("volume %s: %s", v.GetMetadata().GetName(), problem)
		}
	}
	for len(p.kept) > settleKept && !w.Failed() {
		name := byUID[p.kept[0].uid].GetMetadata().GetName()
		err := w.insist(ctx, command{verb: verbErase}, func(ctx context.Context) error {
			_, err := w.volumes.DeleteVolume(ctx, &carav1.DeleteRequest{Name: name})
			return unlessNotFound(err)
		})
		if err != nil {
			return err
		}
		p.kept = p.kept[1:]
	}
	return nil
}
