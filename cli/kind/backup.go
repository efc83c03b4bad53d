package kind

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Backup shows projects by the state of their backups.
func Backup() Kind {
	return Kind{
		Name: "Backup", Plural: "backups",
		Columns: []string{"PROJECT", "STATE", "LAST SUCCESS", "SNAPSHOTS", "SIZE", "PAUSE", "NEXT", "VERIFIED"},
		wide:    []string{"NODE", "DURATION", "ADDED", "SCHEDULE", "MESSAGE"},
		Row:     backupRow,
		List: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]proto.Message, error) {
			l, err := carav1.NewProjectServiceClient(conn).ListProjects(ctx, &carav1.ListProjectsRequest{
				Phase: f.Phases, NodeRef: f.Node, Owner: f.Owner, LabelSelector: f.Selector,
			})
			var out []*carav1.Project
			for _, p := range l.GetItems() {
				if p.GetSpec().GetBackup() != nil && (f.Project == "" || f.Project == p.GetMetadata().GetName()) {
					out = append(out, p)
				}
			}
			return messages(out, err)
		},
		Get: getter(carav1.NewProjectServiceClient, carav1.ProjectServiceClient.GetProject),
	}
}

func backupRow(m proto.Message, now time.Time) []term.Cell {
	p := m.(*carav1.Project)
	s := p.GetStatus().GetBackup()
	var bytes, added int64
	for _, snapshot := range s.GetSnapshots() {
		bytes, added = bytes+snapshot.GetBytes(), added+snapshot.GetAddedBytes()
	}
	size, more := term.Text(""), term.Text("")
	if len(s.GetSnapshots()) > 0 {
		size, more = Size(bytes), Size(added)
	}
	schedule := p.GetSpec().GetBackup().GetSchedule()
	return []term.Cell{
		term.Text(p.GetMetadata().GetName()), backupState(p), term.Ago(now, s.GetLastSuccess()), term.Text(snapshotIDs(s.GetSnapshots())), size,
		shortDuration(s.GetPause()), term.Until(now, s.GetNextRun()), term.Ago(now, s.GetVerified()),
		term.Text(p.GetStatus().GetNodeRef()), shortDuration(s.GetDuration()), more,
		term.Text(strings.TrimSpace(schedule.GetCron() + " " + schedule.GetTimeZone())),
		term.Text(term.Short(term.Line(cmp.Or(s.GetMessage(), s.GetVerifyMessage())), 120)),
	}
}

func shortDuration(d *durationpb.Duration) term.Cell {
	if d == nil {
		return term.Text("")
	}
	return term.Text(d.AsDuration().Round(100 * time.Millisecond).String())
}

func backupState(p *carav1.Project) term.Cell {
	s := p.GetStatus().GetBackup()
	c := term.Text(s.GetState())
	switch {
	case s.GetState() == api.BackupFailed || s.GetVerifyMessage() != "":
		c.Colour = term.Red
	case api.IsTrue(p.GetStatus().GetConditions(), api.CondBackupStale):
		c.Colour = term.Yellow
	case s.GetState() == api.BackupSucceeded:
		c.Colour = term.Green
	}
	return c
}

func snapshotIDs(snapshots []*carav1.BackupSnapshot) string {
	var ids []string
	for _, s := range snapshots {
		ids = append(ids, shortID(s.GetId()))
	}
	return strings.Join(ids, ",")
}

// shortID returns as much of an id as restic needs to find the snapshot.
func shortID(id string) string { return id[:min(8, len(id))] }

// SnapshotsText names the snapshots of a backup.
func SnapshotsText(snapshots []*carav1.BackupSnapshot) string {
	var all []string
	for _, s := range snapshots {
		all = append(all, fmt.Sprintf("volume %s is snapshot %s", s.GetVolume(), shortID(s.GetId())))
	}
	return strings.Join(all, ", ")
}

// backupField describes the backups of a project in one line.
func backupField(p *carav1.Project, now time.Time) string {
	s := p.GetStatus().GetBackup()
	if p.GetSpec().GetBackup() == nil {
		return ""
	}
	if s.GetState() == "" {
		return "none yet"
	}
	out := s.GetState()
	if s.GetState() == api.BackupFailed {
		out += " (" + s.GetReason() + ")"
	}
	if s.GetLastSuccess() != nil {
		out += ", data of " + term.Ago(now, s.GetLastSuccess()).Text + ": " + SnapshotsText(s.GetSnapshots())
	}
	if s.GetNextRun() != nil {
		out += ", next " + term.Until(now, s.GetNextRun()).Text
	}
	return out
}

// restoreField describes the restore of a project: `volumes db, media on n2, Restoring, since 5m by user/admin`.
func restoreField(m *carav1.Move, now time.Time) string {
	r := m.GetRestore()
	noun := "volume "
	if len(r.GetVolumes()) > 1 {
		noun = "volumes "
	}
	text := noun + strings.Join(r.GetVolumes(), ", ")
	if r.GetSnapshot() != "" {
		text += " from snapshot " + shortID(r.GetSnapshot())
	}
	if m.GetTo() != "" {
		text += " on " + m.GetTo()
	}
	if r.GetAs() != "" {
		text += " for project " + r.GetAs()
	}
	return fmt.Sprintf("%s, %s, since %s by %s", text, m.GetStep(), term.Since(now, m.GetStarted()).Text, m.GetActor())
}
