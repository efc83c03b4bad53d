package objects

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// volumesAtATime limits the volumes of one transaction. Each may write its project and two events, too.
const volumesAtATime = 16

// Limits of the volumes for which a node's inventory creates objects, so that a node cannot fill the store.
const (
	maxFound  = 1000   // from one inventory
	maxOnNode = 10_000 // while the node has fewer volumes in all
)

// TakeInventory compares the volumes that a node's engine has with the objects. It writes only differences.
func (s Volumes) TakeInventory(ctx context.Context, node string, inventory *carav1.VolumeInventory) error {
	held := map[string]*carav1.HeldVolume{}
	for _, h := range inventory.GetVolumes() {
		held[h.GetUid()] = h
	}
	view := s.DB.Cache.View()
	names, known := view.VolumesOnNode(node), map[string]bool{}
	var changed []*carav1.Volume
	for _, name := range names {
		v, _ := state.Get[*carav1.Volume](view, name)
		uid := v.GetMetadata().GetUid()
		known[uid] = true
		h := held[uid]
		if rules.FateOf(v, h) != rules.FateStays {
			changed = append(changed, v)
		}
		switch {
		case h == nil:
			s.Live.Sizes.Forget(uid)
		case h.SizeBytes != nil:
			s.Live.Sizes.Note(uid, h)
		}
	}
	for part := range slices.Chunk(changed, volumesAtATime) {
		if err := s.settleVolumes(ctx, node, part, held); err != nil {
			return err
		}
	}
	if err := s.settleRestores(ctx, names, held); err != nil {
		return err
	}
	found, left := rules.FoundVolumes(inventory.GetVolumes(), known, min(maxFound, maxOnNode-len(names)))
	if left > 0 {
		s.DB.Logger.Warn("a node has too many volumes that the server does not know", "node", node, "left_out", left)
	}
	if err := s.adoptVolumes(ctx, node, found); err != nil {
		return err
	}
	s.Live.Inventories.Note(node, true)
	return nil
}

// inventoryWait is how long after the server's start a new volume waits for nodes that have not sent an inventory.
const inventoryWait = time.Minute

// awaitInventories returns an error while a connected node may have data that the server does not know: a server that was
// restored from an older backup must not give a project an empty volume instead.
func (s Volumes) awaitInventories(seen *state.View, req *carav1.ScheduleProjectRequest) error {
	p, _ := state.Get[*carav1.Project](seen, req.GetName())
	fresh := slices.ContainsFunc(p.GetStatus().GetVolumes(), func(u *carav1.VolumeUse) bool { return u.GetNode() == "" })
	if req.GetNodeRef() == "" || !fresh || s.DB.Now().Sub(s.Live.Started) > inventoryWait {
		return nil
	}
	for _, n := range state.List[*carav1.Node](seen, "") {
		engine := api.FindCondition(n.GetStatus().GetConditions(), api.CondEngineReady)
		if n.GetStatus().GetState() != api.NodeNotReady && engine.GetStatus() != api.StatusFalse && !s.Live.Inventories.Of(n.GetMetadata().GetName()) {
			return api.Unavailable("project %q gets its new volumes when node %s has said which volumes it has", req.GetName(), n.GetMetadata().GetName())
		}
	}
	return nil
}

// settleVolumes writes what an inventory means for some volumes of a node. held is the inventory, by uid.
func (s Volumes) settleVolumes(ctx context.Context, node string, volumes []*carav1.Volume, held map[string]*carav1.HeldVolume) error {
	var unseen []*carav1.Volume
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		unseen = nil
		for _, seen := range volumes {
			v := rules.SameVolume(t, seen)
			if v.GetStatus().GetNode() != node {
				continue
			}
			f := rules.FateOf(v, held[v.GetMetadata().GetUid()])
			rules.SettleVolume(t, proto.CloneOf(v), f)
			if f == rules.FateRemoved && v.GetStatus().GetState() == api.VolumeDeleting && !v.GetStatus().GetMade() {
				unseen = append(unseen, v)
			}
		}
		return nil
	})
	if err == nil {
		s.Live.Unseen.Note(unseen...)
	}
	return err
}

// adoptVolumes creates objects for volumes that a node has and the server does not know, as after a restore of the server
// from an older backup.
func (s Volumes) adoptVolumes(ctx context.Context, node string, found []*carav1.HeldVolume) error {
	n, _ := state.Get[*carav1.Node](s.DB.Cache, node)
	restored := s.DB.Now().Sub(s.Live.Started) <= inventoryWait || n.GetStatus().GetRecovery() != state.Recovered(s.DB.Cache)
	for part := range slices.Chunk(found, volumesAtATime) {
		err := s.DB.Transact(ctx, func(t *state.Tx) error {
			for _, h := range part {
				if v := s.Live.Unseen.Of(node, h.GetUid()); v != nil && !h.GetUsed() {
					rules.DeleteAgain(t, v)
					continue
				}
				rules.AdoptVolume(t, node, h, restored)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// settleRestores writes what an inventory of a node means for the restores there. names are the volumes of the node, and held
// is the inventory, by uid.
func (s Volumes) settleRestores(ctx context.Context, names []string, held map[string]*carav1.HeldVolume) error {
	var projects []string
	for _, name := range names {
		v, _ := state.Get[*carav1.Volume](s.DB.Cache, name)
		if v.GetStatus().GetState() == api.VolumeCopying && held[v.GetMetadata().GetUid()].GetRestored() != nil {
			projects = append(projects, v.GetStatus().GetRestoredFrom().GetProject())
		}
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(projects))) {
		err := s.DB.Transact(ctx, func(t *state.Tx) error {
			old, ok := state.Read[*carav1.Project](t, name)
			if !ok || old.GetStatus().GetMove().GetStep() != api.MoveRestoring {
				return nil
			}
			p := proto.CloneOf(old)
			if err := rules.ApplyRestored(t, p, held); err != nil {
				return err
			}
			if !proto.Equal(old, p) {
				t.Put(p)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
