package objects

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// GetVolume returns one volume.
func (s Volumes) GetVolume(_ context.Context, req *carav1.GetRequest) (*carav1.Volume, error) {
	return shown(s.DB.Cache, req.GetName(), s.overlayVolume)
}

// ListVolumes returns volumes sorted by name.
func (s Volumes) ListVolumes(_ context.Context, req *carav1.ListVolumesRequest) (*carav1.ListVolumesResponse, error) {
	prefix := ""
	if req.GetProject() != "" {
		prefix = api.VolumeName(req.GetProject(), "")
	}
	view := s.DB.Cache.View()
	items, meta := state.Page(view, prefix, req.GetPageToken(), req.GetLimit(), func(v *carav1.Volume) bool {
		return (req.GetNode() == "" || req.GetNode() == v.GetStatus().GetNode()) &&
			(req.GetState() == "" || req.GetState() == volumeState(view, v))
	})
	for i, v := range items {
		items[i] = s.overlayVolume(v)
	}
	return &carav1.ListVolumesResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindVolume), Items: items, Metadata: meta}, nil
}

// volumeState returns the state of a volume. The data of a node that was deleted is lost until the node joins again.
func volumeState(r state.Reader, v *carav1.Volume) string {
	if !v.GetStatus().GetMade() {
		return v.GetStatus().GetState()
	}
	if _, ok := state.Get[*carav1.Node](r, v.GetStatus().GetNode()); !ok {
		return api.VolumeLost
	}
	return v.GetStatus().GetState()
}

// overlayVolume adds the size, the last backup, and the state that follows from the node.
func (s *Service) overlayVolume(v *carav1.Volume) *carav1.Volume {
	p, _ := state.Get[*carav1.Project](s.DB.Cache, v.GetSpec().GetProject())
	out := rules.WithBackup(v, p)
	if at := volumeState(s.DB.Cache, v); at != v.GetStatus().GetState() {
		out.Status.State = at
		out.Status.Message = fmt.Sprintf("its node %s was deleted; the data is back when the machine joins again under this name", v.GetStatus().GetNode())
	}
	if held := s.Live.Sizes.Of(v.GetMetadata().GetUid()); held != nil {
		out.Status.SizeBytes, out.Status.SizeTime = held.SizeBytes, held.GetSizeTime()
	}
	return out
}

// editVolume changes a volume in a transaction. change may remove it; then the result is the volume before.
func (s Volumes) editVolume(ctx context.Context, name string, change func(t *state.Tx, v *carav1.Volume) error) (*carav1.Volume, error) {
	var out *carav1.Volume
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		old, ok := state.Read[*carav1.Volume](t, name)
		if !ok {
			return rules.NotFound(api.KindVolume, name)
		}
		out = proto.CloneOf(old)
		return change(t, out)
	})
	if err != nil {
		return nil, err
	}
	return s.overlayVolume(out), nil
}

// DeleteVolume begins the deletion of a volume with its data and waits a short time for its end. A volume without data is
// deleted immediately.
func (s Volumes) DeleteVolume(ctx context.Context, req *carav1.DeleteRequest) (*carav1.Volume, error) {
	v, err := s.editVolume(ctx, req.GetName(), func(t *state.Tx, v *carav1.Volume) error {
		if err := rules.MustBe(v, req.GetUid(), ""); err != nil {
			return err
		}
		return deleteVolume(t, v)
	})
	if err != nil {
		return nil, err
	}
	return v, s.awaitGone(ctx, func() bool {
		now, ok := state.Get[*carav1.Volume](s.DB.Cache, req.GetName())
		return !ok || now.GetMetadata().GetUid() != v.GetMetadata().GetUid()
	})
}

func deleteVolume(t *state.Tx, v *carav1.Volume) error {
	name, st := v.GetMetadata().GetName(), v.GetStatus()
	if st.GetProjectUid() != "" {
		return api.BadState("volume %q is in use by project %q: delete the project first, or remove the volume from its manifest", name, v.GetSpec().GetProject())
	}
	if st.GetState() == api.VolumeCopying {
		return errCopying(v)
	}
	by := "deleted by " + t.Actor.Name
	if st.GetState() == api.VolumeLost || st.GetNode() == "" || rules.NodeGone(t, v) {
		t.Remove(api.KindVolume, name)
		rules.RecordEvent(t, rules.RefTo(v), api.EventNormal, api.ReasonVolumeDeleted, by+"; no node has the data")
		return nil
	}
	if st.GetState() == api.VolumeDeleting {
		return nil // its node is asked already
	}
	rules.SetVolumeState(t, v, api.VolumeDeleting, by)
	rules.RecordEvent(t, rules.RefTo(v), api.EventNormal, api.ReasonVolumeDeleting, by)
	t.Put(v)
	return nil
}

func errCopying(v *carav1.Volume) error {
	name, project := v.GetMetadata().GetName(), rules.FilledBy(v)
	if v.GetStatus().GetRestoredFrom() != nil {
		return api.BadState("volume %q is being restored from a backup of project %q: cancel the restore to delete it (caractrl restore %s --cancel)", name, project, project)
	}
	return api.BadState("volume %q is the incomplete copy of a move of project %q: cancel the move to delete it (caractrl move %s --cancel)", name, project, project)
}

// RecreateVolume gives a project an empty volume in the place of a Lost one. A project that failed for it starts again.
func (s Volumes) RecreateVolume(ctx context.Context, req *carav1.GetRequest) (*carav1.Volume, error) {
	var fresh *carav1.Volume
	_, err := s.editVolume(ctx, req.GetName(), func(t *state.Tx, v *carav1.Volume) (err error) {
		fresh, err = recreateVolume(t, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.overlayVolume(fresh), nil
}

func recreateVolume(t *state.Tx, lost *carav1.Volume) (*carav1.Volume, error) {
	name := lost.GetMetadata().GetName()
	if at := volumeState(t.Seen, lost); at != api.VolumeLost {
		return nil, api.BadState("volume %q is %s: only a Lost one is replaced by an empty one", name, at)
	}
	old, ok := state.Read[*carav1.Project](t, lost.GetSpec().GetProject())
	if !ok || old.GetMetadata().GetUid() != lost.GetStatus().GetProjectUid() {
		return nil, api.BadState("no project uses volume %q: delete it (caractrl delete volume %s), and the next project gets an empty one", name, name)
	}
	p := proto.CloneOf(old)
	if api.GoingAway(p) {
		return nil, rules.ErrTerminating(p)
	}
	v := proto.CloneOf(lost)
	v.Metadata.Uid, v.Status.Made, v.Status.Node = state.NewUID(), false, ""
	rules.SetVolumeState(t, v, api.VolumeInUse, "")
	if rules.NodeGone(t, lost) { // its data comes back with the node
		aside := proto.CloneOf(lost)
		aside.Status.ProjectUid = ""
		rules.SetAside(t, aside)
	} else if p.GetStatus().GetNodeRef() == lost.GetStatus().GetNode() && p.GetStatus().GetPhase() != api.PhaseFailed {
		v.Status.Node = lost.GetStatus().GetNode()
	}
	t.Put(v)
	message := "volume " + name + " is empty now, as " + t.Actor.Name + " asked: its data is lost"
	rules.RecordOfVolume(t, v, p, api.EventWarning, api.ReasonVolumeRecreated, message)
	if p.GetStatus().GetPhase() == api.PhaseFailed {
		rules.LeaveNode(t, p, api.ReasonVolumeRecreated, "waiting for the scheduler")
		if err := rules.MovePhase(t, p, api.PhasePending, api.RoleServer, api.ReasonVolumeRecreated, message); err != nil {
			return nil, err
		}
	}
	rules.EndMove(t, p, api.ReasonMoveCancelled, message)
	rules.PutUse(t, p, v)
	return v, nil
}

// ReleaseVolume removes the owner of a volume that no project uses, so that the next project of the name gets its data.
func (s Volumes) ReleaseVolume(ctx context.Context, req *carav1.GetRequest) (*carav1.Volume, error) {
	return s.editVolume(ctx, req.GetName(), func(t *state.Tx, v *carav1.Volume) error {
		if v.GetStatus().GetProjectUid() != "" {
			return api.BadState("volume %q is in use by project %q: only what no project uses is released", req.GetName(), v.GetSpec().GetProject())
		}
		if v.GetStatus().GetState() == api.VolumeCopying {
			return errCopying(v)
		}
		if v.GetStatus().GetOwner() == "" && v.GetStatus().GetMovedTo() == "" {
			return nil
		}
		rules.RecordEvent(t, rules.RefTo(v), api.EventNormal, api.ReasonVolumeReleased, "released from "+api.OrNobody(v.GetStatus().GetOwner())+" by "+t.Actor.Name)
		v.Status.Owner, v.Status.MovedTo = "", ""
		t.Put(v)
		return nil
	})
}
