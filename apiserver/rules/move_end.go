package rules

import (
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ShowMove sets the condition of a project whose move or restore continues.
func ShowMove(t *state.Tx, p *carav1.Project, reason, message string) {
	SetCondition(t, p, &carav1.Condition{Type: moveCondition(p.GetStatus().GetMove()), Status: api.StatusTrue, Reason: reason, Message: message})
}

// moveCondition returns the type of the condition that shows a move or a restore.
func moveCondition(m *carav1.Move) string {
	if m.GetRestore() != nil {
		return api.CondRestoring
	}
	return api.CondMoving
}

// EndMove ends the move or the restore of a project, if it has one, and deletes the copies. The project continues with the
// data that it has; a node that stopped it for the move starts it again. A copy on a node that does not exist any more is
// deleted when that machine joins again, because nobody may get an incomplete copy. reason is ReasonMoveFailed or
// ReasonMoveCancelled. p is the transaction's own copy.
func EndMove(t *state.Tx, p *carav1.Project, reason api.Reason, why string) {
	m := p.GetStatus().GetMove()
	if m == nil {
		return
	}
	what := "move"
	if m.GetRestore() != nil {
		what, reason = "restore", restoreReason(reason)
	}
	for _, moved := range m.GetVolumes() {
		if v := copyOf(t, p, m, moved); v != nil {
			endUse(t, v, api.VolumeDeleting, api.EventNormal, api.ReasonVolumeDeleting, "it is the copy of a "+what+" that ended: "+why)
		}
	}
	p.Status.Move = nil
	message := endText(m, what) + why
	if st := p.GetStatus(); st.GetPhase() == api.PhaseScheduled || st.GetPhase() == api.PhaseRunning {
		message += "; the project continues on node " + st.GetNodeRef()
	}
	SetCondition(t, p, &carav1.Condition{Type: moveCondition(m), Status: api.StatusFalse, Reason: string(reason), Message: message})
	RecordEvent(t, RefTo(p), api.EventWarning, reason, message)
}

func endText(m *carav1.Move, what string) string {
	switch {
	case m.GetRestore() == nil:
		return "the " + what + " to node " + m.GetTo() + " ended: "
	case m.GetTo() == "":
		return "the " + what + " ended: "
	}
	return "the " + what + " on node " + m.GetTo() + " ended: "
}

// restoreReason returns the reason of the end of a restore for that of the end of a move.
func restoreReason(reason api.Reason) api.Reason {
	if reason == api.ReasonMoveCancelled {
		return api.ReasonRestoreCancelled
	}
	return api.ReasonRestoreFailed
}

// copyOf returns the transaction's own copy of a volume that a move fills, or nil if it does not exist.
func copyOf(t *state.Tx, p *carav1.Project, m *carav1.Move, moved *carav1.MovedVolume) *carav1.Volume {
	name := api.AsideName(copiesFor(p, m), moved.GetName(), moved.GetNewUid())
	v, ok := state.Read[*carav1.Volume](t, name)
	if !ok || v.GetMetadata().GetUid() != moved.GetNewUid() || v.GetStatus().GetState() != api.VolumeCopying || v.GetStatus().GetNode() != m.GetTo() {
		return nil
	}
	return proto.CloneOf(v)
}

// endMoveOfOtherData ends a move that copies other volumes than those that the project uses now, or a restore that is no
// longer about what the project declares.
func endMoveOfOtherData(t *state.Tx, p *carav1.Project, why string) {
	if m := p.GetStatus().GetMove(); m.GetRestore() != nil {
		if other := restoresOther(p, m); other != "" {
			EndMove(t, p, api.ReasonMoveCancelled, other+": "+why)
		}
		return
	}
	if m := p.GetStatus().GetMove(); len(m.GetVolumes()) > 0 && !copiesAll(p, m) {
		EndMove(t, p, api.ReasonMoveCancelled, why)
	}
}

// copiesAll reports whether a move copies exactly the volumes that its project uses.
func copiesAll(p *carav1.Project, m *carav1.Move) bool {
	copied := map[string]string{}
	for _, moved := range m.GetVolumes() {
		copied[moved.GetName()] = moved.GetUid()
	}
	for _, u := range p.GetStatus().GetVolumes() {
		if uid, ok := copied[u.GetName()]; !ok || uid != u.GetUid() {
			return false
		}
	}
	return len(copied) == len(p.GetStatus().GetVolumes())
}

// EndMovesTo ends the moves to a node that is deleted.
func EndMovesTo(t *state.Tx, node string) {
	for _, seen := range state.List[*carav1.Project](t.Seen, "") {
		if seen.GetStatus().GetMove().GetTo() != node {
			continue
		}
		p, ok := state.Read[*carav1.Project](t, seen.GetMetadata().GetName())
		if !ok || p.GetStatus().GetMove().GetTo() != node {
			continue
		}
		p = proto.CloneOf(p)
		EndMove(t, p, api.ReasonMoveFailed, "node "+node+" was deleted by "+t.Actor.Name)
		t.Put(p)
	}
}
