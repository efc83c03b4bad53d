package objects

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
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
			return errTerminating(p)
		case p.GetStatus().GetNodeRef() == "":
			return api.BadState("project %q is %s and has no node: there is nothing to back up yet", req.GetName(), phase)
		}
		p.Status.BackupToken = state.NewUID()
		RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonBackupRequested, "backup asked for by "+t.Actor.Name)
		return nil
	})
}

// reportBackup writes the agent's report about the project's backups. A report of a project that has no backups any more
// removes their state.
func reportBackup(p *carav1.Project, report *carav1.BackupStatus) {
	switch {
	case p.GetSpec().GetBackup() == nil:
		p.Status.Backup, p.Status.BackupToken = nil, ""
	case report != nil:
		p.Status.Backup = proto.CloneOf(report)
	}
}

// withBackup returns a copy of a volume that shows its last backup: the one of its data, or, if the project p uses it, the one
// of the volume's name.
func withBackup(v *carav1.Volume, p *carav1.Project) *carav1.Volume {
	out := proto.CloneOf(v)
	b := p.GetStatus().GetBackup()
	for _, snapshot := range b.GetSnapshots() {
		uses := v.GetStatus().GetProjectUid() != "" && v.GetStatus().GetProjectUid() == p.GetMetadata().GetUid() && snapshot.GetVolume() == v.GetSpec().GetName()
		if snapshot.GetUid() == v.GetMetadata().GetUid() || uses {
			out.Status.LastBackup, out.Status.Snapshot = b.GetLastSuccess(), snapshot.GetId()
		}
	}
	return out
}
