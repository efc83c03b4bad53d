package objects

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// BackupProject asks the project's agent for a backup now. A request during a backup causes another one after it.
func (s Projects) BackupProject(ctx context.Context, req *carav1.BackupProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		switch phase := p.GetStatus().GetPhase(); {
		case p.GetSpec().GetBackup() == nil:
			return api.BadState("project %q has no spec.backup: add it to the manifest, with a Secret of type backup", req.GetName())
		case phase == api.PhaseTerminating || phase == api.PhaseTerminated:
			return rules.ErrTerminating(p)
		case p.GetStatus().GetNodeRef() == "":
			return api.BadState("project %q is %s and has no node: there is nothing to back up yet", req.GetName(), phase)
		}
		p.Status.BackupToken = state.NewUID()
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonBackupRequested, "backup asked for by "+t.Actor.Name)
		return nil
	})
}

// MoveProject requests the move of a project and its data to another node.
func (s Projects) MoveProject(ctx context.Context, req *carav1.MoveProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		if m := p.GetStatus().GetMove(); m != nil {
			return rules.ErrMoving(p, m)
		}
		if err := rules.MayMove(t, p, req.GetTo()); err != nil {
			return err
		}
		p.Status.Move = &carav1.Move{
			Id: state.NewUID(), From: p.GetStatus().GetNodeRef(), To: req.GetTo(), Step: api.MoveRequested,
			Actor: t.Actor.Name, Started: timestamppb.New(t.Now),
		}
		message := fmt.Sprintf("move from %s to node %s requested by %s", rules.OrNoNode(p.GetStatus().GetNodeRef()), req.GetTo(), t.Actor.Name)
		rules.ShowMove(t, p, api.MoveRequested, message+"; waiting for the scheduler")
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonMoving, message)
		return nil
	})
}

// CancelMove ends the move or the restore of a project.
func (s Projects) CancelMove(ctx context.Context, req *carav1.GetRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		if p.GetStatus().GetMove() == nil {
			return api.BadState("project %q is neither moving nor being restored: it is on %s", req.GetName(), rules.OrNoNode(p.GetStatus().GetNodeRef()))
		}
		if r := p.GetStatus().GetMove().GetRestore(); r != nil && r.GetAs() == "" {
			p.Status.RestoreDeclined = timestamppb.New(t.Now)
		}
		rules.EndMove(t, p, api.ReasonMoveCancelled, "cancelled by "+t.Actor.Name)
		return nil
	})
}

// RestoreProject requests the restore of a project's data from its backups.
func (s Projects) RestoreProject(ctx context.Context, req *carav1.RestoreProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		if t.Actor.Role == api.RoleScheduler {
			rules.EndStranded(t, p)
		}
		r, err := rules.RestoreOf(p, req)
		if err != nil {
			return err
		}
		if err := rules.MayRestoreAs(t, p, r); err != nil {
			return err
		}
		to := rules.RestoreNode(t, p, req.GetNode())
		if err := rules.MayRestore(t, p, r, to); err != nil {
			return err
		}
		m := &carav1.Move{
			Id: state.NewUID(), From: p.GetStatus().GetNodeRef(), To: to, Step: api.MoveRequested,
			Actor: t.Actor.Name, Started: timestamppb.New(t.Now), Restore: r,
		}
		p.Status.Move = m
		if r.GetAs() == "" {
			p.Status.RestoreDeclined = nil
		}
		message := "restore of " + rules.RestoredWhat(m) + " requested by " + t.Actor.Name
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonRestoring, message)
		if rules.NeedsNoRoom(p, m) {
			return rules.BeginRestore(t, p, m)
		}
		rules.ShowMove(t, p, api.MoveRequested, message+"; waiting for the scheduler")
		return nil
	})
}
