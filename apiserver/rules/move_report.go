package rules

import (
	"cmp"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ApplyMoveReport writes what a report of the old node means for the project's move. reported returns whether a node has
// sent an inventory of its volumes since the server's start. p is the transaction's own copy.
func ApplyMoveReport(t *state.Tx, p *carav1.Project, r *carav1.MoveReport, reported func(node string) bool) error {
	m := p.GetStatus().GetMove()
	if r == nil || m == nil {
		return nil
	}
	to := targetOf(t, p, m, reported)
	switch afterReport(m, r, to) {
	case moveUnchanged:
	case moveSwitches:
		m.Step = api.MoveSwitching
		ShowMove(t, p, api.MoveSwitching, "the project is stopped on node "+m.GetFrom()+" while the last changes are copied to node "+m.GetTo())
	case moveRepeats:
		repeatMove(t, p, m, whyNot(m, r, to))
	case moveFails:
		EndMove(t, p, api.ReasonMoveFailed, whyNot(m, r, to))
	case moveCompletes:
		return completeMove(t, p, m)
	}
	return nil
}

// showProgress takes the condition Moving from a report, unless the move that it describes has ended.
func showProgress(t *state.Tx, p *carav1.Project, c *carav1.Condition) {
	if step := p.GetStatus().GetMove().GetStep(); step == api.MoveCopying || step == api.MoveSwitching {
		ShowMove(t, p, c.GetReason(), c.GetMessage())
	}
}

// targetOf returns what the server knows about the new node of a move. What it reads is a condition of the commit.
func targetOf(t *state.Tx, p *carav1.Project, m *carav1.Move, reported func(node string) bool) targetState {
	n, ok := state.Read[*carav1.Node](t, m.GetTo())
	if !ok {
		return targetGone
	}
	made := true
	for _, moved := range m.GetVolumes() {
		v := copyOf(t, p, m, moved)
		if v == nil {
			return targetGone
		}
		made = made && v.GetStatus().GetMade()
	}
	switch {
	case n.GetStatus().GetState() == api.NodeNotReady:
		return targetAway
	case !reported(m.GetTo()):
		return targetUnknown
	case !made:
		return targetAway
	case n.GetSpec().GetDraining():
		return targetDraining
	}
	return targetReady
}

// whyNot explains why a report ends a move, or its step Switching.
func whyNot(m *carav1.Move, r *carav1.MoveReport, to targetState) string {
	why := r.GetMessage()
	if r.GetResult() == api.MoveCopied || r.GetResult() == api.MoveVerified {
		why = map[targetState]string{
			targetAway:     "node " + m.GetTo() + " became NotReady before the project could start there",
			targetDraining: "node " + m.GetTo() + " is draining",
			targetGone:     "node " + m.GetTo() + " or a copy there was deleted",
		}[to]
	}
	if why == "" {
		why = "node " + m.GetFrom() + " reported " + r.GetResult()
	}
	if m.GetStep() == api.MoveSwitching && m.GetAttempts()+1 >= maxMoveAttempts {
		why += fmt.Sprintf(" (attempt %d of %d)", m.GetAttempts()+1, maxMoveAttempts)
	}
	return why
}

// repeatMove returns a move to the step Copying, so that the old node starts the project again and repeats the copy.
func repeatMove(t *state.Tx, p *carav1.Project, m *carav1.Move, why string) {
	m.Step, m.Message = api.MoveCopying, why
	m.Attempts++
	message := fmt.Sprintf("attempt %d of %d to switch to node %s failed: %s; the project runs on node %s again, and the copy is repeated",
		m.GetAttempts(), maxMoveAttempts, m.GetTo(), why, m.GetFrom())
	ShowMove(t, p, api.MoveCopying, message)
	RecordEvent(t, RefTo(p), api.EventWarning, api.ReasonMoveRetried, message)
}

// completeMove gives a project its new volumes and its new node. The old volumes are retained, whatever their reclaim says.
// The new node starts the project when the old one has reported that nothing is left of it.
func completeMove(t *state.Tx, p *carav1.Project, m *carav1.Move) error {
	if !copiesAll(p, m) {
		EndMove(t, p, api.ReasonMoveCancelled, "the project uses other volumes than those that were copied")
		return nil
	}
	uses := map[string]*carav1.VolumeUse{}
	for _, moved := range m.GetVolumes() {
		old, err := volumeInUse(t, p, moved.GetName(), moved.GetUid())
		if err != nil {
			return err
		}
		uses[moved.GetName()] = useOf(moveVolume(t, p, m, old, copyOf(t, p, m, moved)))
	}
	for i, u := range p.GetStatus().GetVolumes() {
		p.Status.Volumes[i] = uses[u.GetName()]
	}
	return assignMoved(t, p, m)
}

// moveVolume puts a verified copy in the place of a project's volume, and retains the old one under the name that belongs to
// its data alone. v is the transaction's own copy.
func moveVolume(t *state.Tx, p *carav1.Project, m *carav1.Move, old, v *carav1.Volume) *carav1.Volume {
	swapVolume(t, p, old, v)
	kept := keptVolume(p, m, old)
	SetVolumeState(t, kept, api.VolumeRetained, fmt.Sprintf("project %s moved to node %s with a copy of this data; delete this volume when you do not need it any more (caractrl delete volume %s)",
		p.GetMetadata().GetName(), m.GetTo(), kept.GetMetadata().GetName()))
	t.Put(kept)
	RecordEvent(t, RefTo(v), api.EventNormal, api.ReasonMoved, "moved from node "+m.GetFrom()+" to node "+m.GetTo())
	RecordEvent(t, RefTo(kept), api.EventNormal, api.ReasonVolumeRetained, kept.GetStatus().GetMessage())
	return v
}

// swapVolume puts a complete copy in the place of a project's volume. v is the transaction's own copy.
func swapVolume(t *state.Tx, p *carav1.Project, old, v *carav1.Volume) {
	t.Remove(api.KindVolume, v.GetMetadata().GetName())
	v.Metadata.Name, v.Spec = old.GetMetadata().GetName(), proto.CloneOf(old.GetSpec())
	v.Status.ProjectUid, v.Status.Owner, v.Status.Copy = p.GetMetadata().GetUid(), p.GetMetadata().GetOwner(), false
	SetVolumeState(t, v, api.VolumeInUse, "")
	t.Put(v)
}

// keptVolume returns a volume that a copy has replaced, under the name that belongs to its data alone.
func keptVolume(p *carav1.Project, m *carav1.Move, old *carav1.Volume) *carav1.Volume {
	kept := WithBackup(old, p)
	kept.Metadata.Name, kept.Status.ProjectUid, kept.Status.MovedTo = asideName(old), "", m.GetTo()
	return kept
}

// assignMoved assigns a project to the new node of its move, and ends the move.
func assignMoved(t *state.Tx, p *carav1.Project, m *carav1.Move) error {
	p.Status.Move = nil
	message := fmt.Sprintf("moved from %s to node %s, as %s asked", OrNoNode(m.GetFrom()), m.GetTo(), m.GetActor())
	err := reassignProject(t, p, &carav1.ScheduleProjectRequest{
		Name: p.GetMetadata().GetName(), NodeRef: m.GetTo(), Reason: api.ReasonMoved, Message: message,
	})
	if err != nil {
		return err
	}
	SetCondition(t, p, &carav1.Condition{Type: api.CondMoving, Status: api.StatusFalse, Reason: api.ReasonMoved, Message: message})
	RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonMoved, message)
	return nil
}

// FilledBy returns the project whose move or restore fills a volume in the state Copying.
func FilledBy(v *carav1.Volume) string {
	return cmp.Or(v.GetStatus().GetRestoredFrom().GetProject(), v.GetSpec().GetProject())
}

// loseCopy ends the move whose copy cannot be completed. v is the transaction's own copy of the volume.
func loseCopy(t *state.Tx, v *carav1.Volume, why string) {
	old, ok := state.Read[*carav1.Project](t, FilledBy(v))
	if ok {
		p := proto.CloneOf(old)
		for _, moved := range p.GetStatus().GetMove().GetVolumes() {
			if moved.GetNewUid() == v.GetMetadata().GetUid() {
				EndMove(t, p, api.ReasonMoveFailed, why)
				t.Put(p)
				return
			}
		}
	}
	SetVolumeState(t, v, api.VolumeDeleting, why)
	t.Put(v)
}

// keepUsedCopy retains the copy of a move that a project has used, and ends the move if it is still in progress. The server was
// restored from a backup that was made during the move: the copy may have newer data than the project has now. v is the
// transaction's own copy of the volume.
func keepUsedCopy(t *state.Tx, v *carav1.Volume) {
	node := v.GetStatus().GetNode()
	if v.GetStatus().GetState() == api.VolumeCopying {
		loseCopy(t, proto.CloneOf(v), "a project has used the new volume on node "+node+" already: the server was restored from a backup that was made before")
	}
	v.Status.Made, v.Status.Copy = true, false
	why := fmt.Sprintf("a project has used it on node %s after the backup from which the server was restored: it may have newer data", node)
	endUse(t, v, api.VolumeRetained, api.EventWarning, api.ReasonVolumeRetained, why)
}
