package rules

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// useVolumes makes a project the user of the Managed volumes in its spec. It creates those that do not exist, and gives
// retained data back if the owner may have it. A volume that left the spec is retained, whatever its reclaim says: an
// update never deletes data. p is the transaction's own copy.
func useVolumes(t *state.Tx, p *carav1.Project) error {
	wanted := map[string]bool{}
	var uses []*carav1.VolumeUse
	for _, declared := range api.ManagedVolumes(p.GetSpec()) {
		v, err := useVolume(t, p, declared)
		if err != nil {
			return err
		}
		wanted[declared.GetName()] = true
		uses = append(uses, useOf(v))
	}
	for _, u := range p.GetStatus().GetVolumes() {
		if !wanted[u.GetName()] {
			leaveVolume(t, p, u, false, "it left the manifest of its project")
		}
	}
	p.Status.Volumes = uses
	return nil
}

// useOf returns a volume as its project's status shows it.
func useOf(v *carav1.Volume) *carav1.VolumeUse {
	return &carav1.VolumeUse{
		Name: v.GetSpec().GetName(), Uid: v.GetMetadata().GetUid(), Node: v.GetStatus().GetNode(), Made: v.GetStatus().GetMade(),
	}
}

// PutUse writes into a project's status what one of its volumes is now.
func PutUse(t *state.Tx, p *carav1.Project, v *carav1.Volume) {
	p = proto.CloneOf(p)
	for i, u := range p.GetStatus().GetVolumes() {
		if u.GetName() == v.GetSpec().GetName() {
			p.Status.Volumes[i] = useOf(v)
		}
	}
	t.Put(p)
}

// RecordOfVolume records an event about a volume, and the same about the project that uses it, unless p is nil.
func RecordOfVolume(t *state.Tx, v *carav1.Volume, p *carav1.Project, typ api.EventType, reason api.Reason, message string) {
	RecordEvent(t, RefTo(v), typ, reason, message)
	if p != nil {
		RecordEvent(t, RefTo(p), typ, reason, message)
	}
}

// useVolume returns the volume of a project for one declaration.
func useVolume(t *state.Tx, p *carav1.Project, declared *carav1.ProjectVolume) (*carav1.Volume, error) {
	name := api.VolumeName(p.GetMetadata().GetName(), declared.GetName())
	old, exists := state.Read[*carav1.Volume](t, name)
	if exists && old.GetStatus().GetState() == api.VolumeDeleting {
		SetAside(t, old) // its deletion goes on, and this project never had that data
		exists = false
	}
	if !exists {
		if old = onlyKept(t, name); old == nil {
			v := newVolume(t, p, declared)
			t.Put(v)
			return v, nil
		}
		t.Remove(api.KindVolume, old.GetMetadata().GetName())
	}
	v := proto.CloneOf(old)
	v.Metadata.Name = name
	if old.GetStatus().GetProjectUid() != p.GetMetadata().GetUid() {
		if err := reattach(t, p, v, old.GetMetadata().GetName()); err != nil {
			return nil, err
		}
	}
	v.Spec.Reclaim, v.Status.Owner = reclaimOf(declared), p.GetMetadata().GetOwner()
	if !proto.Equal(old, v) {
		t.Put(v)
	}
	return v, nil
}

// onlyKept returns the only retained volume that lost its name to a newer one, or nil. It leaves out the data that a move
// left behind, because a newer copy of it existed.
func onlyKept(t *state.Tx, name string) *carav1.Volume {
	var kept *carav1.Volume
	for _, a := range state.List[*carav1.Volume](t.Seen, name+".") {
		v, ok := state.Read[*carav1.Volume](t, a.GetMetadata().GetName())
		if !ok || v.GetStatus().GetState() != api.VolumeRetained || v.GetStatus().GetMovedTo() != "" {
			continue
		}
		if kept != nil {
			return nil
		}
		kept = v
	}
	return kept
}

func reclaimOf(declared *carav1.ProjectVolume) string {
	if api.Reclaims(declared) {
		return api.ReclaimDelete
	}
	return api.ReclaimRetain
}

// newVolume returns a volume without data. If the project has a node already, because an update adds the volume, its agent
// creates the volume there. Otherwise the volume gets its node with its project.
func newVolume(t *state.Tx, p *carav1.Project, declared *carav1.ProjectVolume) *carav1.Volume {
	spec := &carav1.VolumeSpec{Project: p.GetMetadata().GetName(), Name: declared.GetName(), Reclaim: reclaimOf(declared)}
	v := makeVolume(t, spec, &carav1.VolumeStatus{Node: p.GetStatus().GetNodeRef(), Owner: p.GetMetadata().GetOwner(), ProjectUid: p.GetMetadata().GetUid()})
	SetVolumeState(t, v, api.VolumeInUse, "")
	return v
}

// makeVolume returns a new volume under the name that projects use.
func makeVolume(t *state.Tx, spec *carav1.VolumeSpec, status *carav1.VolumeStatus) *carav1.Volume {
	return &carav1.Volume{
		ApiVersion: api.APIVersion, Kind: api.KindVolume, Spec: spec, Status: status,
		Metadata: &carav1.ObjectMeta{Name: api.VolumeName(spec.GetProject(), spec.GetName()), Uid: state.NewUID(), CreationTimestamp: timestamppb.New(t.Now)},
	}
}

// reattach gives a volume that no project uses to a new project, or returns why its owner may not have it. keptAs is the
// volume's name until now.
func reattach(t *state.Tx, p *carav1.Project, v *carav1.Volume, keptAs string) error {
	name, owner := v.GetMetadata().GetName(), p.GetMetadata().GetOwner()
	if have := v.GetStatus().GetOwner(); !reattaches(t, have, owner) {
		return api.Owned("the data of volume %q is kept for %s, and project %q belongs to %s: release it (caractrl release volume %s), delete it (caractrl delete volume %s), or rename the volume or the project",
			keptAs, api.OrNobody(have), p.GetMetadata().GetName(), api.OrNobody(owner), keptAs, keptAs)
	}
	v.Status.ProjectUid = p.GetMetadata().GetUid()
	if v.GetStatus().GetState() == api.VolumeRetained {
		age := duration.HumanDuration(t.Now.Sub(v.GetMetadata().GetCreationTimestamp().AsTime()))
		message := "volume " + name + " has its data of before, " + age + " old: kept since " + v.GetStatus().GetSince().AsTime().UTC().Format(time.RFC3339)
		SetVolumeState(t, v, api.VolumeInUse, "")
		RecordOfVolume(t, v, p, api.EventNormal, api.ReasonVolumeReattached, message)
	}
	return nil
}

// reattaches reports whether data that was kept for one owner goes to a project of another.
func reattaches(t *state.Tx, have, owner string) bool {
	adopt := ""
	if source, ok := api.SourceOf(owner); ok {
		src, _ := state.Read[*carav1.Source](t, source)
		adopt = src.GetSpec().GetAdopt()
	}
	return plan.Reattaches(have, owner, adopt)
}

// SetVolumeState sets the state of a volume with the reason. v is the transaction's own copy.
func SetVolumeState(t *state.Tx, v *carav1.Volume, to, message string) {
	v.Status.State, v.Status.Message, v.Status.Since = to, message, timestamppb.New(t.Now)
}

// endUse sets the state of a volume that nobody uses any more, with an event, and writes it. v is the transaction's own copy.
func endUse(t *state.Tx, v *carav1.Volume, to string, typ api.EventType, reason api.Reason, why string) {
	SetVolumeState(t, v, to, why)
	RecordEvent(t, RefTo(v), typ, reason, why)
	t.Put(v)
}

// SetAside gives a volume the name that belongs to its data alone, so that its old name is free.
func SetAside(t *state.Tx, old *carav1.Volume) {
	v := proto.CloneOf(old)
	v.Metadata.Name = asideName(old)
	t.Remove(api.KindVolume, old.GetMetadata().GetName())
	t.Put(v)
}

func asideName(v *carav1.Volume) string {
	return api.AsideName(v.GetSpec().GetProject(), v.GetSpec().GetName(), v.GetMetadata().GetUid())
}

// placeVolumes gives the project's volumes their node. Data stays where it is: a project cannot be bound to another node
// than that of its data. A volume whose old node never reported it starts anew on the new one, with a new uid, so that data
// on the old node, if there is any, is never taken for this one's.
func placeVolumes(t *state.Tx, p *carav1.Project, node string) error {
	for _, u := range p.GetStatus().GetVolumes() {
		old, err := volumeInUse(t, p, u.GetName(), u.GetUid())
		if err != nil {
			return err
		}
		at := old.GetStatus().GetNode()
		switch {
		case at == node:
			continue
		case old.GetStatus().GetMade():
			return api.Conflict("project %q cannot run on node %s: the data of its volume %s is on node %s", p.GetMetadata().GetName(), node, u.GetName(), at)
		}
		v := proto.CloneOf(old)
		v.Status.Node = node
		if at != "" {
			v.Metadata.Uid = state.NewUID()
		}
		t.Put(v)
		u.Node, u.Uid = node, v.GetMetadata().GetUid()
	}
	return nil
}

// OwnVolumes makes the owner of a project that of its volumes, too.
func OwnVolumes(t *state.Tx, p *carav1.Project) {
	for _, u := range p.GetStatus().GetVolumes() {
		old, ok := state.Read[*carav1.Volume](t, api.VolumeName(p.GetMetadata().GetName(), u.GetName()))
		if !ok || old.GetMetadata().GetUid() != u.GetUid() || old.GetStatus().GetOwner() == p.GetMetadata().GetOwner() {
			continue
		}
		v := proto.CloneOf(old)
		v.Status.Owner = p.GetMetadata().GetOwner()
		t.Put(v)
	}
}

// leaveVolumes ends the use of all volumes of a project whose record is removed.
func leaveVolumes(t *state.Tx, p *carav1.Project) {
	why := "its project is gone: " + deletionText(p)
	for _, u := range p.GetStatus().GetVolumes() {
		leaveVolume(t, p, u, true, why)
	}
}

// leaveVolume ends the use of one volume by a project. Its data is deleted only if the project ends and the newest manifest
// says so.
func leaveVolume(t *state.Tx, p *carav1.Project, u *carav1.VolumeUse, ends bool, why string) {
	old, ok := state.Read[*carav1.Volume](t, api.VolumeName(p.GetMetadata().GetName(), u.GetName()))
	if !ok || old.GetMetadata().GetUid() != u.GetUid() {
		return
	}
	v := WithBackup(old, p)
	v.Status.ProjectUid = ""
	if ends { // what a manifest leaves out stays with its owner, also when a source adopts the project by that manifest
		v.Status.Owner = p.GetMetadata().GetOwner()
	}
	reclaim := ends && v.GetSpec().GetReclaim() == api.ReclaimDelete
	switch {
	case v.GetStatus().GetNode() == "", reclaim && NodeGone(t, v):
		t.Remove(api.KindVolume, v.GetMetadata().GetName())
	case reclaim:
		endUse(t, v, api.VolumeDeleting, api.EventNormal, api.ReasonVolumeDeleting, why+", and its reclaim is "+api.ReclaimDelete)
	case v.GetStatus().GetState() == api.VolumeLost:
		t.Put(v)
	default:
		endUse(t, v, api.VolumeRetained, api.EventNormal, api.ReasonVolumeRetained, why)
	}
}

// NodeGone reports whether the node of a volume does not exist.
func NodeGone(t *state.Tx, v *carav1.Volume) bool {
	_, ok := state.Read[*carav1.Node](t, v.GetStatus().GetNode())
	return !ok
}
