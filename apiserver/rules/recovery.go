package rules

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Later is what an assignment means that a node obeyed before the state was taken back to an older one.
type Later int

// What a server learns from an obeyed assignment.
const (
	LaterNothing   Later = iota // the state has this assignment, or the node had to give the project up anyway
	LaterHere                   // the project is on this node: what runs there is newer than the state knows
	LaterElsewhere              // the state has the project on another node or on none, and this node has something of it
	LaterUnknown                // the state does not have the project
)

// maxAhead limits how far an epoch of a node may be ahead of the state, so that no node can use all epochs up.
const maxAhead = 1 << 20

// LaterOf decides what an assignment means that a node has obeyed. p is nil if there is no such project. late is true if nobody waits for
// the node any more: then another node may run the project by now, and a node that was not there holds nothing.
func LaterOf(p *carav1.Project, node string, o *carav1.ObeyedProject, late bool) Later {
	st := p.GetStatus()
	ahead := o.GetEpoch() > st.GetEpoch()
	switch {
	case p == nil || p.GetMetadata().GetUid() != o.GetUid():
		return LaterUnknown
	case o.GetEpoch()-st.GetEpoch() > maxAhead || st.GetPhase() == api.PhaseTerminated:
		return LaterNothing
	case st.GetNodeRef() == node && (ahead || o.GetEpoch() == st.GetEpoch() && st.GetHeldBy() != ""):
		return LaterHere // also: the node could start it only because nobody held it any more
	case st.GetNodeRef() == node || st.GetHeldBy() == node || late:
		return LaterNothing
	case o.GetEpoch() > 0 && o.GetEpoch() < st.GetEpoch():
		return LaterNothing // the state knows that the project has left this node since
	case st.GetHeldBy() == "" || ahead:
		return LaterElsewhere
	}
	return LaterNothing
}

// TakeLater writes what an obeyed assignment means.
//
// On its own node the project gets the epoch that the node has, so nothing restarts, and no epoch is used twice. If it belongs to
// another node, the node that has something of it holds it, so there are never two copies: the other node gets the project when this
// one has removed what it ran. A node's answer never gives the node a project that it does not have in the state.
func TakeLater(t *state.Tx, node string, o *carav1.ObeyedProject, late bool) (Later, error) {
	p, _ := state.Read[*carav1.Project](t, o.GetName())
	later := LaterOf(p, node, o, late)
	if later != LaterHere && later != LaterElsewhere {
		return later, nil
	}
	p = proto.CloneOf(p)
	st := p.GetStatus()
	st.Epoch = max(st.GetEpoch(), o.GetEpoch())
	if later == LaterHere {
		st.HeldBy = ""
		RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonRecovered, fmt.Sprintf("node %s continues with epoch %d, which the recovered state did not know", node, st.GetEpoch()))
		t.Put(p)
		return later, nil
	}
	st.HeldBy = node
	message := fmt.Sprintf("node %s has containers of it that the recovered state does not know: it starts when node %s has removed them", node, node)
	if st.GetNodeRef() != "" {
		st.Epoch++ // the request to remove it is newer than what the node has
		awaitHolder(t, p)
	}
	if st.GetPhase() == api.PhaseRunning {
		if err := MovePhase(t, p, api.PhaseScheduled, api.RoleServer, api.ReasonRecovered, message); err != nil {
			return later, err
		}
	} else {
		RecordEvent(t, RefTo(p), api.EventWarning, api.ReasonRecovered, message)
	}
	t.Put(p)
	return later, nil
}
