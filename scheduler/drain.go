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
		errs = append(errs, s.leave(ctx, at.projects[d.Project], d, name, at.demands[d.Project].Receive))
	}
	if n.GetSpec().GetDrainMoveData() {
		errs = append(errs, s.markDrained(ctx, n, &carav1.MarkNodeDrainedRequest{Waits: true, Message: waitsText(leave)}))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nextMove(at), errors.Join(errs...)
}

// leave carries out what a drain decided about a project. withData means that its data moves, too.
func (s *Scheduler) leave(ctx context.Context, p *carav1.Project, d Departure, node string, withData bool) error {
	message := fmt.Sprintf("node %s is draining", node)
	switch {
	case d.Node == "":
		return s.explain(ctx, p, api.StatusTrue, api.ReasonNodeDraining, message+", and the project stays: "+d.Why)
	case withData:
		return moves{s}.requestMove(ctx, p, d.Node)
	}
	return s.assign(ctx, p, &carav1.ScheduleProjectRequest{Action: api.ScheduleMove, NodeRef: d.Node, Reason: api.ReasonNodeDraining, Message: message})
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
