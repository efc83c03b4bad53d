package scheduler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Relocation is the decision about a project whose node is lost.
type Relocation struct {
	// Node is the new node. If it is empty, the project stays assigned to the lost node because of Why.
	Node string
	Why  string
}

// Relocate decides where a project of a lost node goes. It moves only to a node that has room: an unassigned project would
// serve nobody, and all its containers would be replaced when the node returns. If all nodes are lost at the same time, as
// in Kubernetes' full disruption, the fault is in the network or the server, and nothing moves. A project waits for the node
// that has its data. Relocate is a pure function.
func Relocate(d Demand, from string, nodes []*Candidate, how Strategy) Relocation {
	if why := d.bound(from); why != "" {
		return Relocation{Why: "and waits until the node returns: " + why}
	}
	if allLost(nodes) && len(nodes) > 1 {
		return Relocation{Why: fmt.Sprintf("all %d nodes are lost, so nothing is moved", len(nodes))}
	}
	others := without(nodes, from)
	if len(others) == 0 {
		return Relocation{Why: "there is no other node"}
	}
	v := Place(d, others, how)
	if v.Node == "" {
		return Relocation{Why: "of the other nodes " + v.Explain()}
	}
	return Relocation{Node: v.Node}
}

// allLost reports whether there are nodes and all of them are lost.
func allLost(nodes []*Candidate) bool {
	return len(nodes) > 0 && !slices.ContainsFunc(nodes, func(c *Candidate) bool { return c.Unfit != NotReady })
}

func without(nodes []*Candidate, name string) []*Candidate {
	return slices.DeleteFunc(slices.Clone(nodes), func(c *Candidate) bool { return c.Name == name })
}

// lostSince returns when the wait for a lost node began: when it was lost, but not before one timeout after the scheduler
// started, and not before the end of a period in which all nodes were lost.
func (s *Scheduler) lostSince(n *carav1.Node) time.Time {
	since, name := s.started.Add(s.cfg.HeartbeatTimeout), n.GetMetadata().GetName()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteNode(name, n, time.Now())
	if at := s.turns[name].at; at.After(since) {
		since = at
	}
	if s.resumed.After(since) {
		since = s.resumed
	}
	return since
}

// keepLost decides about a project on a lost node, after the wait that the project asks for. A project whose data is on the
// node cannot move, so its condition says so without a wait.
func (s *Scheduler) keepLost(ctx context.Context, p *carav1.Project, n *carav1.Node) (time.Duration, error) {
	node := n.GetMetadata().GetName()
	d, err := demand(p)
	if err != nil {
		return 0, err
	}
	message := fmt.Sprintf("node %s is lost: %s", node, api.FindCondition(n.GetStatus().GetConditions(), api.CondReady).GetMessage())
	stay := func(why string) error {
		return s.explain(ctx, p, api.StatusTrue, api.ReasonNodeLost, message+"; the project stays, "+why)
	}
	if d.bound(node) != "" && recovers(p, &d) {
		return moves{s}.restoreLost(ctx, p, d, n, stay)
	}
	wait, never, err := api.RescheduleAfter(p.GetSpec().GetRescheduleAfter())
	bound := d.bound(node) != ""
	switch {
	case bound:
		wait = 0
	case err != nil || never:
		return 0, err
	}
	if left := time.Until(s.lostSince(n).Add(wait)); left > 0 {
		return left, nil
	}
	if api.UpdateFailed(p) && !bound {
		return 0, stay(staysUpdateFailed)
	}
	s.mu.Lock()
	to := Relocate(d, node, s.ledger.order, s.cfg.Strategy)
	s.reserveOrWait(d, to.Node)
	s.mu.Unlock()
	if to.Node == "" {
		return 0, stay(to.Why)
	}
	return 0, s.assign(ctx, p, &carav1.ScheduleProjectRequest{Action: api.ScheduleMove, NodeRef: to.Node, Reason: api.ReasonNodeLost, Message: message})
}

// staysUpdateFailed is why a project stays if its newest spec failed to start. Its containers run the previous spec, and
// another node would start the newest one.
const staysUpdateFailed = "its last update failed, and on another node it would start with that: correct the spec, or roll it back"
