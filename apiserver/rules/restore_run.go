package rules

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// BeginRestore creates the volumes that the node fills. m is the move of p, and has its node.
func BeginRestore(t *state.Tx, p *carav1.Project, m *carav1.Move) error {
	for _, name := range m.GetRestore().GetVolumes() {
		v := newRestored(t, p, m, name)
		if _, taken := state.Read[*carav1.Volume](t, v.GetMetadata().GetName()); taken {
			return api.Conflict("there is a volume %q already: try again", v.GetMetadata().GetName())
		}
		t.Put(v)
		m.Volumes = append(m.Volumes, &carav1.MovedVolume{
			Name: name, Uid: api.VolumeUse(p, name).GetUid(), NewUid: v.GetMetadata().GetUid(), Snapshot: m.GetRestore().GetSnapshot(),
		})
	}
	m.Step = api.MoveRestoring
	ShowMove(t, p, api.ReasonRestoring, "restoring "+RestoredWhat(m))
	return nil
}

// newRestored returns a volume that a restore fills.
func newRestored(t *state.Tx, p *carav1.Project, m *carav1.Move, name string) *carav1.Volume {
	project := p.GetMetadata().GetName()
	spec := &carav1.VolumeSpec{Project: copiesFor(p, m), Name: name, Reclaim: api.ReclaimRetain}
	for _, declared := range api.ManagedVolumes(p.GetSpec()) {
		if declared.GetName() == name && m.GetRestore().GetAs() == "" {
			spec.Reclaim = reclaimOf(declared)
		}
	}
	v := makeVolume(t, spec, &carav1.VolumeStatus{
		Node: m.GetTo(), Owner: p.GetMetadata().GetOwner(), Copy: true, RestoredFrom: &carav1.RestoredFrom{Project: project, Volume: name},
	})
	SetVolumeState(t, v, api.VolumeCopying, "it is being restored from a backup of project "+project)
	v.Metadata.Name = asideName(v)
	return v
}

// copiesFor returns the project that the new volumes of a move belong to.
func copiesFor(p *carav1.Project, m *carav1.Move) string {
	return cmp.Or(m.GetRestore().GetAs(), p.GetMetadata().GetName())
}

// restoreEffect is what an inventory means for a restore.
type restoreEffect int

const (
	restoreContinues restoreEffect = iota
	restoreCompletes               // all volumes are complete and verified
	restoreFails
)

// afterInventory decides what the inventory of its node means for a restore, and explains it. held is the inventory, by uid.
func afterInventory(m *carav1.Move, held map[string]*carav1.HeldVolume) (restoreEffect, string) {
	var done int
	var texts []string
	for _, moved := range m.GetVolumes() {
		r := held[moved.GetNewUid()].GetRestored()
		switch r.GetState() {
		case api.VolumeRestoreFailed:
			return restoreFails, fmt.Sprintf("node %s cannot restore volume %s: %s", m.GetTo(), moved.GetName(), cmp.Or(r.GetMessage(), r.GetReason(), "it does not say why"))
		case api.VolumeRestored:
			done++
			texts = append(texts, "volume "+moved.GetName()+" is complete")
		case api.VolumeRestoring:
			texts = append(texts, progressOf(moved.GetName(), r))
		default:
			texts = append(texts, "volume "+moved.GetName()+" waits")
		}
	}
	if done == len(m.GetVolumes()) {
		return restoreCompletes, ""
	}
	return restoreContinues, fmt.Sprintf("node %s restores %d of %d volumes: %s", m.GetTo(), len(m.GetVolumes())-done, len(m.GetVolumes()), strings.Join(texts, "; "))
}

// maxProgress limits what the condition shows of a node's message about one volume.
const maxProgress = 300

func progressOf(volume string, r *carav1.RestoredVolume) string {
	out := "volume " + volume
	if r.GetBytes() > 0 {
		out += fmt.Sprintf(" has %s of %s", text.Size(r.GetBytesDone()), text.Size(r.GetBytes()))
	} else {
		out += " begins"
	}
	if r.GetMessage() != "" {
		out += " (" + text.Clip(r.GetMessage(), maxProgress) + ")"
	}
	return out
}

// ApplyRestored writes what an inventory means for the restore of a project. p is the transaction's own copy.
func ApplyRestored(t *state.Tx, p *carav1.Project, held map[string]*carav1.HeldVolume) error {
	m := p.GetStatus().GetMove()
	copies := make([]*carav1.Volume, len(m.GetVolumes()))
	for i, moved := range m.GetVolumes() {
		if copies[i] = copyOf(t, p, m, moved); copies[i] == nil {
			EndMove(t, p, api.ReasonMoveFailed, "the new volume "+moved.GetName()+" was deleted")
			return nil
		}
		noteSnapshot(t, copies[i], moved, held[moved.GetNewUid()].GetRestored())
	}
	switch effect, why := afterInventory(m, held); effect {
	case restoreContinues:
		ShowMove(t, p, api.ReasonRestoring, why)
	case restoreFails:
		EndMove(t, p, api.ReasonMoveFailed, why)
	case restoreCompletes:
		return completeRestore(t, p, m, copies)
	}
	return nil
}

// noteSnapshot records which snapshot the node has chosen for a volume. v is the transaction's own copy.
func noteSnapshot(t *state.Tx, v *carav1.Volume, moved *carav1.MovedVolume, r *carav1.RestoredVolume) {
	from := v.GetStatus().GetRestoredFrom()
	if r.GetSnapshot() == "" || from.GetSnapshot() == r.GetSnapshot() && (r.GetTime() == nil || proto.Equal(from.GetTime(), r.GetTime())) {
		return
	}
	moved.Snapshot = r.GetSnapshot()
	v.Status.RestoredFrom = proto.CloneOf(from)
	v.Status.RestoredFrom.Snapshot, v.Status.RestoredFrom.Time = r.GetSnapshot(), r.GetTime()
	t.Put(v)
}

// snapshotText describes the snapshot of a restored volume: `snapshot 1a2b3c4d of 2026-01-31T03:30:00Z`.
func snapshotText(v *carav1.Volume) string {
	from := v.GetStatus().GetRestoredFrom()
	out := "snapshot " + api.ShortUID(from.GetSnapshot())
	if from.GetTime() != nil {
		out += " of " + from.GetTime().AsTime().UTC().Format(time.RFC3339)
	}
	return out
}

// completeRestore gives a project its restored volumes. The volumes that they replace are retained, whatever their reclaim
// says. copies are the transaction's own copies of the new volumes.
func completeRestore(t *state.Tx, p *carav1.Project, m *carav1.Move, copies []*carav1.Volume) error {
	if m.GetRestore().GetAs() != "" {
		keepRestored(t, p, m, copies)
		return nil
	}
	to, _ := state.Read[*carav1.Node](t, m.GetTo())
	if why := cannotSwitch(p, m, to); why != "" {
		EndMove(t, p, api.ReasonMoveFailed, why)
		return nil
	}
	uses := map[string]*carav1.VolumeUse{}
	var texts []string
	for _, v := range copies {
		name := v.GetSpec().GetName()
		old, err := volumeInUse(t, p, name, api.VolumeUse(p, name).GetUid())
		if err != nil {
			return err
		}
		v.Status.Made = true // its inventory says so
		uses[name] = useOf(replaceVolume(t, p, m, old, v))
		texts = append(texts, "volume "+name+" from "+snapshotText(v))
	}
	for i, u := range p.GetStatus().GetVolumes() {
		if use := uses[u.GetName()]; use != nil {
			p.Status.Volumes[i] = use
		}
	}
	return assignRestored(t, p, m, strings.Join(texts, ", "))
}

// cannotSwitch returns why a project cannot continue on its restored volumes on the node to; empty if it can.
func cannotSwitch(p *carav1.Project, m *carav1.Move, to *carav1.Node) string {
	switch {
	case api.UpdateFailed(p):
		return "the last update of the project failed, and it would start with that update"
	case to.GetSpec().GetDraining() && p.GetStatus().GetNodeRef() != m.GetTo():
		return "node " + m.GetTo() + " is draining"
	}
	if why := restoresOther(p, m); why != "" {
		return why
	}
	if u := leftElsewhere(p, m.GetRestore(), m.GetTo()); u != nil {
		return fmt.Sprintf("the data of volume %s is on node %s and is not restored", u.GetName(), u.GetNode())
	}
	return ""
}

// restoresOther returns why a restore no longer is about what its project declares; empty if it is.
func restoresOther(p *carav1.Project, m *carav1.Move) string {
	if p.GetSpec().GetBackup() == nil {
		return "spec.backup was removed from the project"
	}
	for _, name := range m.GetRestore().GetVolumes() {
		if m.GetRestore().GetAs() == "" && api.VolumeUse(p, name) == nil {
			return "the project does not use volume " + name + " any more"
		}
	}
	return ""
}

// replaceVolume puts a restored volume in the place of a project's volume, and keeps the old one under the name that belongs
// to its data alone. v is the transaction's own copy.
func replaceVolume(t *state.Tx, p *carav1.Project, m *carav1.Move, old, v *carav1.Volume) *carav1.Volume {
	swapVolume(t, p, old, v)
	RecordEvent(t, RefTo(v), api.EventNormal, api.ReasonRestored, "restored from "+snapshotText(v)+" on node "+m.GetTo())
	if old.GetStatus().GetNode() == "" {
		return v // it never had data
	}
	kept := keptVolume(p, m, old)
	why := fmt.Sprintf("replaced by %s; delete this volume when you do not need it any more (caractrl delete volume %s)", snapshotText(v), kept.GetMetadata().GetName())
	if old.GetStatus().GetState() == api.VolumeLost {
		kept.Status.Message = why
		t.Put(kept)
	} else {
		endUse(t, kept, api.VolumeRetained, api.EventNormal, api.ReasonVolumeRetained, why)
	}
	return v
}

// assignRestored starts a project on its restored volumes, and ends the restore. If the node is the same, its agent replaces
// the containers, because they have an older epoch.
func assignRestored(t *state.Tx, p *carav1.Project, m *carav1.Move, what string) error {
	p.Status.Move = nil
	message := fmt.Sprintf("restored %s on node %s, as %s asked", what, m.GetTo(), m.GetActor())
	if p.GetStatus().GetPhase() == api.PhaseFailed {
		LeaveNode(t, p, api.ReasonRestored, "waiting for the scheduler")
		if err := MovePhase(t, p, api.PhasePending, api.RoleServer, api.ReasonRestored, message); err != nil {
			return err
		}
	}
	err := reassignProject(t, p, &carav1.ScheduleProjectRequest{
		Name: p.GetMetadata().GetName(), NodeRef: m.GetTo(), Reason: api.ReasonRestored, Message: message,
	})
	if err != nil {
		return err
	}
	if p.GetStatus().GetMovedFrom() == m.GetTo() {
		p.Status.MovedFrom = ""
	}
	endRestored(t, p, message)
	return nil
}

// endRestored records that a restore was successful.
func endRestored(t *state.Tx, p *carav1.Project, message string) {
	SetCondition(t, p, &carav1.Condition{Type: api.CondRestoring, Status: api.StatusFalse, Reason: api.ReasonRestored, Message: message})
	RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonRestored, message)
}

// keepRestored retains restored volumes for another project. A volume whose name was taken meanwhile keeps the name that
// belongs to its data alone. copies are the transaction's own copies.
func keepRestored(t *state.Tx, p *carav1.Project, m *carav1.Move, copies []*carav1.Volume) {
	project, as := p.GetMetadata().GetName(), m.GetRestore().GetAs()
	var names []string
	for _, v := range copies {
		name := api.VolumeName(as, v.GetSpec().GetName())
		if _, taken := state.Read[*carav1.Volume](t, name); !taken {
			t.Remove(api.KindVolume, v.GetMetadata().GetName())
			v.Metadata.Name = name
		}
		v.Status.Made, v.Status.Copy = true, false
		why := fmt.Sprintf("restored from %s of project %s, for the next project %s", snapshotText(v), project, as)
		endUse(t, v, api.VolumeRetained, api.EventNormal, api.ReasonRestored, why)
		names = append(names, v.GetMetadata().GetName())
	}
	p.Status.Move = nil
	endRestored(t, p, fmt.Sprintf("restored as volumes %s on node %s, as %s asked", strings.Join(names, ", "), m.GetTo(), m.GetActor()))
}
