package cli

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// backed reports the end of the backup that was asked for last, as the project's node does.
func (h *testServer) backed(ctx context.Context, project, state, snapshot string) error {
	p, err := h.project(ctx, project)
	if err != nil {
		return err
	}
	conn, err := h.as(ctx, p.GetStatus().GetNodeRef())
	if err != nil {
		return err
	}
	defer conn.Close()
	now := timestamppb.New(h.clock.now())
	_, err = carav1.NewProjectServiceClient(conn).UpdateProjectStatus(ctx, &carav1.UpdateProjectStatusRequest{
		Name: project, Uid: p.GetMetadata().GetUid(), Epoch: p.GetStatus().GetEpoch(), ObservedGeneration: p.GetMetadata().GetGeneration(),
		Services: p.GetStatus().GetServices(),
		Backup: &carav1.BackupStatus{
			Since: now, LastDue: now, LastAttempt: now, LastSuccess: now, State: state, Token: p.GetStatus().GetBackupToken(),
			Snapshots: []*carav1.BackupSnapshot{{Volume: "db", Id: snapshot, Bytes: 5 << 30, AddedBytes: 100 << 20}},
			Duration:  durationpb.New(time.Minute), Pause: durationpb.New(1500 * time.Millisecond),
		},
	})
	return err
}
