package scheduler

import (
	"context"
	"fmt"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Relocation is what becomes of a project whose node is lost.
type Relocation struct {
	// Node is where it goes; empty if it stays assigned to the node that is lost, and Why says so.
	Node string
	Why  string
}

// Relocate decides it. A project leaves only for a node that has room for it: taken off its node and put nowhere, it would
// serve nobody, and all of its containers would be replaced when the node comes back. When all nodes are lost at once, as
// in Kubernetes' full disruption, the fault is in the network or the server, and nothing leaves. It is a pure function.
func Relocate(d Demand, from string, nodes []*Candidate, how Strategy) Relocation {
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

// allLost reports whether there are nodes and none of them is heard of.
func allLost(nodes []*Candidate) bool {
	for _, c := range nodes {
		if c.Unfit != NotReady {
			return false
		}
	}
	return len(nodes) > 0
}

func without(nodes []*Candidate, name string) []*Candidate {
	others := make([]*Candidate, 0, len(nodes))
	for _, c := range nodes {
		if c.Name != name {
			others = append(others, c)
		}
	}
	return others
}

// heardAgain notes when the first node is heard of after all were lost. From then on each of the others has as long as its
// projects wait for a lost node: it may be a moment behind. It is called with mu held.
func (s *Scheduler) heardAgain(now time.Time) {
	lost := allLost(s.ledger.order)
	if s.disrupted && !lost {
		s.resumed = now
	}
	s.disrupted = lost
}

// lostSince is when a node was given up; not before one time-out after the start of the scheduler, and not while all
// nodes were lost.
func (s *Scheduler) lostSince(n *carav1.Node) time.Time {
	since := s.started.Add(s.cfg.HeartbeatTimeout)
	c := api.FindCondition(n.GetStatus().GetConditions(), api.CondReady)
	if at := c.GetLastTransitionTime(); at != nil && at.AsTime().After(since) {
		since = at.AsTime()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumed.After(since) {
		since = s.resumed
	}
	return since
}

// keepLost decides about a project whose node is lost, once that has lasted as long as the project waits.
func (s *Scheduler) keepLost(ctx context.Context, p *carav1.Project, n *carav1.Node) (time.Duration, error) {
	wait, never, err := api.RescheduleAfter(p.GetSpec().GetRescheduleAfter())
	if err != nil || never {
		return 0, err
	}
	if left := time.Until(s.lostSince(n).Add(wait)); left > 0 {
		return left, nil
	}
	node := n.GetMetadata().GetName()
	message := fmt.Sprintf("node %s is lost: %s", node, api.FindCondition(n.GetStatus().GetConditions(), api.CondReady).GetMessage())
	if api.UpdateFailed(p) {
		return 0, s.explain(ctx, p, api.StatusTrue, api.ReasonNodeLost, message+"; the project stays, "+staysUpdateFailed)
	}
	d, err := demand(p)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	to := Relocate(d, node, s.ledger.order, s.cfg.Strategy)
	if to.Node == "" {
		s.waiting[d.Project] = true
	} else {
		s.ledger.reserve(d, to.Node)
	}
	s.mu.Unlock()
	if to.Node == "" {
		return 0, s.explain(ctx, p, api.StatusTrue, api.ReasonNodeLost, message+"; the project stays, "+to.Why)
	}
	return 0, s.assign(ctx, p, &carav1.ScheduleProjectRequest{Action: api.ScheduleMove, NodeRef: to.Node, Reason: api.ReasonNodeLost, Message: message})
}

// staysUpdateFailed is why a project does not move whose newest spec has not come up. What serves is of the spec before,
// and another node would be given the newest.
const staysUpdateFailed = "its last update failed, and on another node it would start with that: correct the spec, or roll it back"
