package cli

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
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

// fills reports the restores on a node: all volumes there that a restore fills are in a state.
func (h *testServer) fills(ctx context.Context, node, state, snapshot, message string) error {
	conn, err := h.loop(ctx, "scheduler")
	if err != nil {
		return err
	}
	all, err := carav1.NewVolumeServiceClient(conn).ListVolumes(ctx, &carav1.ListVolumesRequest{Node: node})
	if err != nil {
		return err
	}
	inventory := &carav1.VolumeInventory{}
	for _, v := range all.GetItems() {
		held := &carav1.HeldVolume{Uid: v.GetMetadata().GetUid(), Project: v.GetSpec().GetProject(), Name: v.GetSpec().GetName()}
		if v.GetStatus().GetState() == api.VolumeCopying {
			held.Restored = &carav1.RestoredVolume{
				State: state, Snapshot: snapshot, Time: timestamppb.New(h.clock.now()), Bytes: 20 << 20, BytesDone: 5 << 20, Message: message,
			}
		}
		inventory.Volumes = append(inventory.Volumes, held)
	}
	n, err := carav1.NewNodeServiceClient(conn).GetNode(ctx, kind.ByName(node))
	if err != nil {
		return err
	}
	return h.beat(ctx, node, &carav1.Heartbeat{Info: n.GetStatus().GetInfo(), Volumes: inventory})
}
