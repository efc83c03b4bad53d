package rules

import (
	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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

// WithBackup returns a copy of a volume that shows its last backup: the one of its data, or, if the project p uses it, the one
// of the volume's name.
func WithBackup(v *carav1.Volume, p *carav1.Project) *carav1.Volume {
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
