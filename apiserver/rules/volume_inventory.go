package rules

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Fate is what a node's inventory means for one volume.
type Fate int

// What becomes of a volume.
const (
	FateStays   Fate = iota
	made             // the node has it for the first time
	found            // its data is there again
	lost             // its data is gone
	copyLost         // it is the copy of a move, and its data is gone
	copyUsed         // it is the copy of a move, and a project has used it, of which a restored server does not know
	FateRemoved      // its deletion is done, or it never had data and no project uses it
)

// FateOf decides what it means for a volume that its node has it or not. h is nil if the node does not have it.
func FateOf(v *carav1.Volume, h *carav1.HeldVolume) Fate {
	st, held := v.GetStatus(), h != nil
	switch {
	case st.GetCopy() && h.GetUsed() && (st.GetState() == api.VolumeCopying || st.GetState() == api.VolumeDeleting):
		return copyUsed
	case st.GetState() == api.VolumeDeleting && !held:
		return FateRemoved
	case st.GetState() == api.VolumeDeleting:
		return FateStays
	case st.GetState() == api.VolumeCopying && !held && st.GetMade():
		return copyLost
	case st.GetState() == api.VolumeCopying && !held:
		return FateStays
	case held && st.GetState() == api.VolumeLost:
		return found
	case held && !st.GetMade():
		return made
	case held:
		return FateStays
	case st.GetProjectUid() == "" && !st.GetMade():
		return FateRemoved
	case st.GetMade() && st.GetState() != api.VolumeLost:
		return lost
	}
	return FateStays
}

// FoundVolumes returns the volumes of an inventory that the server does not know, sorted, at most limit, and how many more
// there are. It leaves out volumes whose labels no agent writes.
func FoundVolumes(held []*carav1.HeldVolume, known map[string]bool, limit int) (found []*carav1.HeldVolume, left int) {
	for _, h := range held {
		if !known[h.GetUid()] && api.IsName(h.GetProject()) && api.IsName(h.GetName()) {
			found = append(found, h)
		}
	}
	slices.SortFunc(found, func(a, b *carav1.HeldVolume) int {
		return slices.Compare([]string{a.GetProject(), a.GetName(), a.GetUid()}, []string{b.GetProject(), b.GetName(), b.GetUid()})
	})
	limit = min(max(limit, 0), len(found))
	return found[:limit], len(found) - limit
}

// SameVolume returns a volume by its uid, or nil if it is gone. It may have another name than before: a new project of the name
// sets a volume aside that is being deleted, and takes a retained one back.
func SameVolume(t *state.Tx, seen *carav1.Volume) *carav1.Volume {
	plain := api.VolumeName(seen.GetSpec().GetProject(), seen.GetSpec().GetName())
	for _, name := range []string{seen.GetMetadata().GetName(), plain, asideName(seen)} {
		if v, ok := state.Read[*carav1.Volume](t, name); ok && v.GetMetadata().GetUid() == seen.GetMetadata().GetUid() {
			return v
		}
	}
	return nil
}

// SettleVolume writes the fate of a volume. v is the transaction's own copy.
func SettleVolume(t *state.Tx, v *carav1.Volume, f Fate) {
	name, node := v.GetMetadata().GetName(), v.GetStatus().GetNode()
	switch f {
	case FateStays:
		return
	case FateRemoved:
		t.Remove(api.KindVolume, name)
		if v.GetStatus().GetMade() {
			RecordEvent(t, RefTo(v), api.EventNormal, api.ReasonVolumeDeleted, "its data is deleted from node "+node)
		}
		return
	case made:
		v.Status.Made = true
	case found:
		v.Status.Made = true
		to := api.VolumeRetained
		if v.GetStatus().GetProjectUid() != "" {
			to = api.VolumeInUse
		}
		SetVolumeState(t, v, to, "")
		RecordOfVolume(t, v, userOf(t, v), api.EventNormal, api.ReasonVolumeFound, fmt.Sprintf("the data of volume %s is on node %s again", name, node))
	case copyLost:
		loseCopy(t, v, fmt.Sprintf("the copy of volume %s is no longer on node %s", v.GetSpec().GetName(), node))
		return
	case copyUsed:
		keepUsedCopy(t, v)
		return
	case lost:
		message := fmt.Sprintf("the data of volume %s is no longer on node %s: somebody removed it from the engine there, or the engine has another data directory", name, node)
		SetVolumeState(t, v, api.VolumeLost, message)
		RecordOfVolume(t, v, userOf(t, v), api.EventWarning, api.ReasonVolumeLost, message)
	}
	t.Put(v)
	switch p := userOf(t, v); {
	case p == nil:
	case f == made:
		PutUse(t, p, v)
	case f == lost && p.GetStatus().GetMove() != nil && p.GetStatus().GetMove().GetRestore() == nil:
		p = proto.CloneOf(p)
		EndMove(t, p, api.ReasonMoveFailed, "the data of volume "+name+" is lost")
		t.Put(p)
	}
}

// userOf returns the project that uses a volume, or nil.
func userOf(t *state.Tx, v *carav1.Volume) *carav1.Project {
	if v.GetStatus().GetProjectUid() == "" {
		return nil
	}
	p, ok := state.Read[*carav1.Project](t, v.GetSpec().GetProject())
	use := api.VolumeUse(p, v.GetSpec().GetName())
	if !ok || p.GetMetadata().GetUid() != v.GetStatus().GetProjectUid() || use.GetUid() != v.GetMetadata().GetUid() {
		return nil
	}
	return p
}

// DeleteAgain continues the deletion of a volume that its node has after all.
func DeleteAgain(t *state.Tx, gone *carav1.Volume) {
	v := proto.CloneOf(gone)
	v.Metadata = &carav1.ObjectMeta{Name: asideName(gone), Uid: gone.GetMetadata().GetUid(), CreationTimestamp: gone.GetMetadata().GetCreationTimestamp()}
	if _, exists := state.Read[*carav1.Volume](t, v.GetMetadata().GetName()); !exists {
		v.Status.Made = true
		t.Put(v)
	}
}

// AdoptVolume creates the object of one volume. restored is true soon after the server's start, when the server may have been restored
// from an older backup, and when a node comes back for the first time after a recovery. Only then the volume belongs to the owner in its
// label. At other times somebody else has made it: it belongs to nobody who could get it by a project's name, until an administrator
// releases it.
func AdoptVolume(t *state.Tx, node string, h *carav1.HeldVolume, restored bool) {
	siblings := state.List[*carav1.Volume](t.Seen, api.VolumeName(h.GetProject(), ""))
	if slices.ContainsFunc(siblings, func(v *carav1.Volume) bool { return v.GetMetadata().GetUid() == h.GetUid() }) {
		return // another node has it
	}
	spec := &carav1.VolumeSpec{Project: h.GetProject(), Name: h.GetName(), Reclaim: api.ReclaimRetain}
	v := makeVolume(t, spec, &carav1.VolumeStatus{Node: node, Made: true, Owner: h.GetOwner()})
	v.Metadata.Uid = h.GetUid()
	message := "node " + node + " has it, and the server did not know it"
	SetVolumeState(t, v, api.VolumeRetained, message)
	other, taken := state.Read[*carav1.Volume](t, v.GetMetadata().GetName())
	if !restored {
		v.Status.Owner = api.PrefixNode + node
	}
	if taken && replaceEmpty(t, other, v) {
		return
	}
	if taken && other.GetStatus().GetState() == api.VolumeInUse { // such as one that was made just before its project moved
		v.Status.MovedTo = other.GetStatus().GetNode()
	}
	if taken || !restored {
		v.Metadata.Name = asideName(v)
		if _, taken := state.Read[*carav1.Volume](t, v.GetMetadata().GetName()); taken {
			return
		}
	}
	RecordEvent(t, RefTo(v), api.EventNormal, api.ReasonVolumeFound, message)
	t.Put(v)
}

// replaceEmpty puts found data in the place of a volume without data, if the owner may have it: of a new one that waits for
// its first node, or of one whose data the same node has lost. It reports whether it did.
func replaceEmpty(t *state.Tx, empty, v *carav1.Volume) bool {
	st := empty.GetStatus()
	fresh, lost := st.GetNode() == "", st.GetState() == api.VolumeLost && st.GetNode() == v.GetStatus().GetNode()
	if !fresh && !lost || !reattaches(t, v.GetStatus().GetOwner(), st.GetOwner()) {
		return false
	}
	p := userOf(t, empty)
	v.Spec.Reclaim, v.Status.Owner = empty.GetSpec().GetReclaim(), st.GetOwner()
	if p == nil {
		t.Put(v)
		return true
	}
	v.Status.ProjectUid = st.GetProjectUid()
	SetVolumeState(t, v, api.VolumeInUse, "")
	t.Put(v)
	PutUse(t, p, v)
	RecordOfVolume(t, v, p, api.EventNormal, api.ReasonVolumeReattached,
		"volume "+v.GetMetadata().GetName()+" has its data of before, which node "+v.GetStatus().GetNode()+" has")
	return true
}
