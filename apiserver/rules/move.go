package rules

import (
	"cmp"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A move copies a project's data to another node and then assigns the project to that node. status.move has its state:
//
//   - Requested: the scheduler checks whether the project fits on the new node.
//   - Copying: each volume has a second Volume object on the new node, in the state Copying. The old node runs the project
//     and copies the data.
//   - Switching: the old node has stopped the project. It copies the last changes and verifies the copy.
//
// When the old node has reported that the copy is verified, one transaction gives the project its new node and volumes.
// Until then, each other end of the move deletes the copies and leaves the project on its old node. The old data is never
// deleted by a move.

// maxMoveAttempts is how often the step Switching may fail before the move ends.
const maxMoveAttempts = 3

// targetState is what the server knows about the new node of a move and the copies there.
type targetState int

const (
	targetReady    targetState = iota // the node is Ready and has reported all copies
	targetUnknown                     // the node has sent no inventory since the server's start
	targetAway                        // the node is NotReady, or has not reported all copies
	targetDraining                    // as targetReady, but the node is draining
	targetGone                        // the node or a copy does not exist any more
)

// moveEffect is what a report means for a move.
type moveEffect int

const (
	moveUnchanged moveEffect = iota
	moveSwitches             // Copying to Switching
	moveRepeats              // Switching to Copying: the old node starts the project again
	moveCompletes            // the project gets its new node
	moveFails
)

// afterReport decides what a report of the old node means for a move. A report about another move, or about another step,
// is older than the node's assignment and changes nothing: the node repeats its report until its assignment changes.
func afterReport(m *carav1.Move, r *carav1.MoveReport, to targetState) moveEffect {
	if r == nil || m.GetId() != r.GetId() {
		return moveUnchanged
	}
	switch copying, switching := m.GetStep() == api.MoveCopying, m.GetStep() == api.MoveSwitching; {
	case r.GetResult() == api.MoveFailed && (copying || switching):
		return moveFails
	case r.GetResult() == api.MoveCopied && copying:
		return afterCopied(to)
	case r.GetResult() == api.MoveVerified && switching:
		return afterVerified(m, to)
	case r.GetResult() == api.MoveInterrupted && switching:
		return repeatOrFail(m)
	}
	return moveUnchanged
}

// afterCopied stops the project only for a new node that can get it now.
func afterCopied(to targetState) moveEffect {
	switch to {
	case targetReady:
		return moveSwitches
	case targetDraining, targetGone:
		return moveFails
	case targetUnknown, targetAway:
	}
	return moveUnchanged
}

// afterVerified does not assign the project to a node that is away: the old node starts it again instead.
func afterVerified(m *carav1.Move, to targetState) moveEffect {
	switch to {
	case targetReady, targetDraining:
		return moveCompletes
	case targetAway:
		return repeatOrFail(m)
	case targetGone:
		return moveFails
	case targetUnknown:
	}
	return moveUnchanged
}

func repeatOrFail(m *carav1.Move) moveEffect {
	if m.GetAttempts()+1 >= maxMoveAttempts {
		return moveFails
	}
	return moveRepeats
}

// cannotMove returns why a project cannot move to a node, with what to do, or nil. from and to may be nil. The scheduler
// checks whether the project fits.
func cannotMove(p *carav1.Project, name string, from, to *carav1.Node) error {
	project, st := p.GetMetadata().GetName(), p.GetStatus()
	if api.GoingAway(p) {
		return ErrTerminating(p)
	}
	switch {
	case to == nil:
		return NotFound(api.KindNode, name)
	case st.GetNodeRef() == name:
		return api.BadState("project %q is on node %s already", project, name)
	case st.GetPhase() == api.PhaseFailed:
		return api.BadState("project %q has failed on node %s: correct it and retry it (caractrl retry %s), and move it when it runs", project, st.GetNodeRef(), project)
	case api.UpdateFailed(p):
		return api.BadState("the last update of project %q failed, and node %s would start the project with that update: correct the spec, or roll it back (caractrl rollback %s)", project, name, project)
	case to.GetStatus().GetState() == api.NodeNotReady:
		return api.BadState("node %s is NotReady: start cara-agent there, or choose another node", name)
	case to.GetSpec().GetDraining() || to.GetSpec().GetUnschedulable():
		return api.BadState("node %s takes no new projects, because it is cordoned or draining: uncordon it (caractrl uncordon %s), or choose another node", name, name)
	case len(api.DataNodes(p)) > 0:
		return cannotCopy(p, from, to)
	}
	return nil
}

// cannotCopy returns why the data of a project cannot be copied from one node to another, with what to do, or nil.
func cannotCopy(p *carav1.Project, from, to *carav1.Node) error {
	project, at, target := p.GetMetadata().GetName(), p.GetStatus().GetNodeRef(), to.GetMetadata().GetName()
	where := api.DataNodes(p)
	switch {
	case len(where) > 1:
		return api.BadState("the data of project %q is on the nodes %s: remove the volumes of all nodes but one from the manifest first", project, strings.Join(where, " and "))
	case at == "":
		return api.BadState("project %q has no node, and its data is on node %s: that node copies the data while the project is assigned to it. caractrl describe project %s shows why the project waits", project, where[0], project)
	case where[0] != at:
		return api.BadState("project %q is on node %s, and its data is on node %s: try again when the project is there", project, at, where[0])
	case from.GetStatus().GetState() == api.NodeNotReady || from == nil:
		return api.BadState("node %s is NotReady, and it has the data of project %q: start cara-agent there", at, project)
	}
	for _, u := range p.GetStatus().GetVolumes() {
		v := api.VolumeName(project, u.GetName())
		if !u.GetMade() {
			return api.BadState("node %s has not created volume %s yet: try again when project %q runs", at, v, project)
		}
	}
	for _, n := range []*carav1.Node{from, to} {
		if _, ok := n.GetStatus().GetInfo().GetTools()[api.ToolRsync]; !ok {
			return api.BadState("node %s has no rsync, which copies the data: install it there (apt-get install rsync) and restart cara-agent", n.GetMetadata().GetName())
		}
	}
	reachable := api.FindCondition(to.GetStatus().GetConditions(), api.CondIngressReachable)
	if to.GetStatus().GetInfo().GetIngressAddress() == "" || reachable.GetStatus() == api.StatusFalse {
		return api.BadState("node %s cannot receive data, because it has no address that other nodes can reach: start cara-agent there with --ingress-address HOST:PORT", target)
	}
	return nil
}

// OrNoNode describes where a project is: `node n1`, or `no node`.
func OrNoNode(node string) string {
	if node == "" {
		return "no node"
	}
	return "node " + node
}

// MayMove is cannotMove with the nodes as the transaction reads them.
func MayMove(t *state.Tx, p *carav1.Project, to string) error {
	var source *carav1.Node
	if at := p.GetStatus().GetNodeRef(); at != "" {
		source, _ = state.Read[*carav1.Node](t, at)
	}
	target, _ := state.Read[*carav1.Node](t, to)
	return cannotMove(p, to, source, target)
}

// acceptMove begins the move that the scheduler has found room for. A project without data is assigned to its new node
// immediately. If a restore has no node yet, the scheduler has chosen it.
func acceptMove(t *state.Tx, p *carav1.Project, req *carav1.ScheduleProjectRequest) error {
	m := p.GetStatus().GetMove()
	if m.GetStep() != api.MoveRequested || cmp.Or(m.GetTo(), req.GetNodeRef()) != req.GetNodeRef() {
		return api.Conflict("project %q does not wait for a move to node %s", p.GetMetadata().GetName(), req.GetNodeRef())
	}
	m.From, m.To = p.GetStatus().GetNodeRef(), req.GetNodeRef()
	if r := m.GetRestore(); r != nil {
		if err := MayRestore(t, p, r, m.GetTo()); err != nil {
			EndMove(t, p, api.ReasonMoveFailed, api.ProblemOf(err).GetDetail())
			return nil
		}
		return BeginRestore(t, p, m)
	}
	if err := MayMove(t, p, m.GetTo()); err != nil {
		EndMove(t, p, api.ReasonMoveFailed, api.ProblemOf(err).GetDetail())
		return nil
	}
	if len(api.DataNodes(p)) == 0 {
		return assignMoved(t, p, m)
	}
	for _, u := range p.GetStatus().GetVolumes() {
		v, err := newCopy(t, p, u, m)
		if err != nil {
			return err
		}
		t.Put(v)
		m.Volumes = append(m.Volumes, &carav1.MovedVolume{Name: u.GetName(), Uid: u.GetUid(), NewUid: v.GetMetadata().GetUid()})
	}
	m.Step = api.MoveCopying
	ShowMove(t, p, api.MoveCopying, "the data is being copied from node "+m.GetFrom()+" to node "+m.GetTo())
	return nil
}

// refuseMove ends a move that the scheduler finds no room for, or a restore that the scheduler has requested itself and that
// is not needed any more.
func refuseMove(t *state.Tx, p *carav1.Project, req *carav1.ScheduleProjectRequest) error {
	m := p.GetStatus().GetMove()
	if m.GetRestore() != nil && m.GetActor() == t.Actor.Name && m.GetStep() == api.MoveRestoring {
		EndMove(t, p, api.ReasonMoveCancelled, cmp.Or(req.GetMessage(), "it is not needed any more"))
		return nil
	}
	if m.GetStep() != api.MoveRequested {
		return api.Conflict("project %q does not wait for a move", p.GetMetadata().GetName())
	}
	EndMove(t, p, api.ReasonMoveFailed, cmp.Or(req.GetMessage(), "the project does not fit there"))
	return nil
}

// newCopy returns the volume that receives the data of another one.
func newCopy(t *state.Tx, p *carav1.Project, u *carav1.VolumeUse, m *carav1.Move) (*carav1.Volume, error) {
	old, err := volumeInUse(t, p, u.GetName(), u.GetUid())
	if err != nil {
		return nil, err
	}
	v := makeVolume(t, proto.CloneOf(old.GetSpec()), &carav1.VolumeStatus{Node: m.GetTo(), Owner: p.GetMetadata().GetOwner(), Copy: true})
	SetVolumeState(t, v, api.VolumeCopying, "project "+p.GetMetadata().GetName()+" moves from node "+m.GetFrom()+" to node "+m.GetTo())
	v.Metadata.Name = asideName(v)
	if _, taken := state.Read[*carav1.Volume](t, v.GetMetadata().GetName()); taken {
		return nil, api.Conflict("there is a volume %q already: try again", v.GetMetadata().GetName())
	}
	return v, nil
}

// volumeInUse returns the volume that a project uses under a name, or an error if it is another one.
func volumeInUse(t *state.Tx, p *carav1.Project, volume, uid string) (*carav1.Volume, error) {
	name := api.VolumeName(p.GetMetadata().GetName(), volume)
	v, ok := state.Read[*carav1.Volume](t, name)
	if !ok || v.GetMetadata().GetUid() != uid {
		return nil, api.Conflict("volume %q is not the one that project %q uses", name, p.GetMetadata().GetName())
	}
	return v, nil
}
