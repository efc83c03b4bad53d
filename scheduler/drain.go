package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// wakeDrains queues the draining nodes that a project is on or is moving away from. s.mu is held.
func (s *Scheduler) wakeDrains(c loop.Change) {
	for _, m := range []any{c.Old, c.New} {
		p, _ := m.(*carav1.Project)
		for _, node := range []string{p.GetStatus().GetNodeRef(), p.GetStatus().GetMovedFrom()} {
			if s.ledger.drains[node] {
				s.queue.Add(nodeKey(node))
			}
		}
	}
}

// drain moves the next projects off a draining node. It runs under the node's queue key, so two runs never overlap. The
// moves in progress are counted from the projects and from reservations, so a restart loses nothing. Projects of a lost node
// are left to the rule for lost nodes.
// It returns the wait until a failed move of data may be repeated, or 0.
func (s *Scheduler) drain(ctx context.Context, name string) (time.Duration, error) {
	n, ok := loop.Get[*carav1.Node](s.mirror, name)
	if !ok || !n.GetSpec().GetDraining() || n.GetStatus().GetState() == api.NodeNotReady || n.GetStatus().GetState() == "" {
		return 0, nil
	}
	s.mu.Lock()
	at := s.occupants(name, n.GetSpec().GetDrainMoveData())
	leave := Leave(at.residents, at.underway, int(n.GetSpec().GetDrainMaxParallel()), s.ledger.order, s.cfg.Strategy)
	for _, d := range leave {
		if d.Node != "" && !at.demands[d.Project].Receive {
			s.ledger.reserve(at.demands[d.Project], d.Node)
		}
	}
	s.mu.Unlock()
	if at.empty() {
		return 0, s.drained(ctx, n, at)
	}
	var errs []error
	for _, d := range leave {
		p, message := at.projects[d.Project], fmt.Sprintf("node %s is draining", name)
		if d.Node == "" {
			errs = append(errs, s.explain(ctx, p, api.StatusTrue, api.ReasonNodeDraining, message+", and the project stays: "+d.Why))
			continue
		}
		if at.demands[d.Project].Receive {
			errs = append(errs, s.requestMove(ctx, p, d.Node))
			continue
		}
		errs = append(errs, s.assign(ctx, p, &carav1.ScheduleProjectRequest{Action: api.ScheduleMove, NodeRef: d.Node, Reason: api.ReasonNodeDraining, Message: message}))
	}
	if n.GetSpec().GetDrainMoveData() {
		errs = append(errs, s.markDrained(ctx, n, &carav1.MarkNodeDrainedRequest{Waits: true, Message: waitsText(leave)}))
	}
	return s.nextMove(at), errors.Join(errs...)
}

// occupants are the projects that a drain of a node has to consider.
type occupants struct {
	residents []Resident // may be moved
	projects  map[string]*carav1.Project
	demands   map[string]Demand
	underway  int // moved away, and not running elsewhere yet
	ending    int // being deleted
	failed    int // stopped and kept for their logs
}

func (o *occupants) empty() bool { return len(o.residents)+o.underway+o.ending == 0 }

// occupants reads the projects from the ledger. s.mu is held.
func (s *Scheduler) occupants(node string, moveData bool) *occupants {
	o := &occupants{projects: map[string]*carav1.Project{}, demands: map[string]Demand{}}
	for _, names := range []map[string]bool{s.ledger.on[node], s.ledger.away[node]} {
		for name := range names {
			p, ok := s.ledger.projects[name]
			if _, seen := o.projects[name]; seen || !ok {
				continue
			}
			o.projects[name] = p
			s.occupant(o, p, node, moveData)
		}
	}
	return o
}

func (s *Scheduler) occupant(o *occupants, p *carav1.Project, node string, moveData bool) {
	name, st := p.GetMetadata().GetName(), p.GetStatus()
	d, err := demand(p)
	r, reserved := s.ledger.reserved[name]
	reserved = reserved && r.revision == 0 || reserved && r.revision > api.RevisionOf(p)
	_, asked := s.asked[name]
	switch phase := st.GetPhase(); {
	case st.GetNodeRef() == node && (asked || st.GetMove() != nil && phase != api.PhaseTerminating):
		o.underway++ // its data is being copied
	case reserved && r.node != node && st.GetNodeRef() == node:
		o.underway++ // its move is decided, and the watch has not reported it
	case st.GetNodeRef() != node:
		if st.GetMovedFrom() == node {
			o.underway++
		}
	case phase == api.PhaseTerminating:
		o.ending++
	case phase == api.PhaseFailed:
		o.failed++
	case phase == api.PhaseScheduled || phase == api.PhaseRunning:
		if err != nil { // a stored spec was valid when it was accepted
			d = Demand{Project: name}
		}
		r := Resident{Demand: d, Running: phase == api.PhaseRunning, Stays: d.bound(node)}
		if moveData && r.Stays != "" {
			r.Stays = s.staysForNow(&d)
			r.Demand = d.moved()
		}
		if r.Stays == "" && api.UpdateFailed(p) {
			r.Stays = staysUpdateFailed
		}
		o.demands[name] = r.Demand
		o.residents = append(o.residents, r)
	}
}

// nextMove returns the wait until the first failed move of a node's projects may be repeated, or 0 if there is none.
func (s *Scheduler) nextMove(o *occupants) (wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range o.residents {
		a, failed := s.attempts[r.Project]
		if left := time.Until(a.due()); failed && r.Receive && left > 0 {
			wait = earlier(wait, left)
		}
	}
	return wait
}

// drained marks a node as drained, once.
func (s *Scheduler) drained(ctx context.Context, n *carav1.Node, at *occupants) error {
	if api.IsTrue(n.GetStatus().GetConditions(), api.CondDrained) {
		return nil
	}
	message := "nothing runs here any more"
	if at.failed > 0 {
		message += fmt.Sprintf("; Failed projects stay, stopped, for their logs: %d", at.failed)
	}
	return s.markDrained(ctx, n, &carav1.MarkNodeDrainedRequest{Message: message})
}

// maxWaiting limits the projects that the condition Drained names.
const maxWaiting = 3

// waitsText names the projects that a drain cannot move now, and why. The text does not depend on the projects that are
// moving, so that it changes rarely.
func waitsText(leave []Departure) string {
	var stay []string
	for _, d := range leave {
		if d.Node == "" {
			stay = append(stay, fmt.Sprintf("project %s stays: %s", d.Project, d.Why))
		}
	}
	if len(stay) == 0 {
		return "its projects are leaving"
	}
	slices.Sort(stay)
	if more := len(stay) - maxWaiting; more > 0 {
		stay = append(stay[:maxWaiting], fmt.Sprintf("%d more projects stay", more))
	}
	return strings.Join(stay, "; ")
}

// markDrained sets the condition Drained of a node, unless the node has it already.
func (s *Scheduler) markDrained(ctx context.Context, n *carav1.Node, req *carav1.MarkNodeDrainedRequest) error {
	name := n.GetMetadata().GetName()
	if req.Waits && api.FindCondition(n.GetStatus().GetConditions(), api.CondDrained).GetMessage() == req.Message {
		return nil
	}
	req.Name, req.ResourceVersion = name, n.GetMetadata().GetResourceVersion()
	_, err := s.nodes.MarkNodeDrained(ctx, req)
	if api.IsConflict(err) || api.IsNotFound(err) {
		return nil // it changed: the change triggers another pass
	}
	if err != nil {
		return fmt.Errorf("set the condition Drained of node %s: %w", name, err)
	}
	if !req.Waits {
		s.cfg.Logger.Info("node drained", "node", name)
	}
	return nil
}
