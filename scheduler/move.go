package scheduler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// A move to a node that an operator or a drain has chosen begins with a request (RPC MoveProject). The scheduler checks
// whether the project fits on that node, and accepts or refuses the request. While the data is copied, the project counts on
// both nodes.

// Admit returns why a project does not fit on the one node that it is to move to; empty if it fits. Its data is copied, so
// the node does not need to have it. Admit is a pure function.
func Admit(d Demand, to string, nodes []*Candidate) string {
	d = d.moved()
	i := slices.IndexFunc(nodes, func(c *Candidate) bool { return c.Name == to })
	if i < 0 {
		return fmt.Sprintf("there is no node %s", to)
	}
	if why := filter(&d, nodes[i]); why != Fits {
		return fmt.Sprintf("project %s does not fit node %s: %s", d.Project, to, why)
	}
	return ""
}

// moved returns the demand of a project whose data is copied to its new node.
func (d *Demand) moved() Demand {
	out := *d
	out.Data, out.Receive = nil, len(d.Data) > 0
	return out
}

// receives reports whether a node can receive the data of a project from another node.
func receives(n *carav1.Node) bool {
	info := n.GetStatus().GetInfo()
	_, tool := info.GetTools()[api.ToolRsync]
	refused := api.FindCondition(n.GetStatus().GetConditions(), api.CondIngressReachable).GetStatus() == api.StatusFalse
	return tool && info.GetIngressAddress() != "" && !refused
}

// requested reports whether a project waits for a decision about its move or its restore.
func requested(p *carav1.Project) bool {
	m := p.GetStatus().GetMove()
	switch p.GetStatus().GetPhase() {
	case api.PhasePending, api.PhaseScheduled, api.PhaseRunning:
		return m.GetStep() == api.MoveRequested
	case api.PhaseFailed: // a restore can replace the data for which it failed
		return m.GetStep() == api.MoveRequested && m.GetRestore() != nil
	}
	return false
}

// moves is the part of the scheduler that decides about moves and restores of data.
type moves struct{ *Scheduler }

// decideMove accepts or refuses the requested move or restore of a project.
func (s moves) decideMove(ctx context.Context, p *carav1.Project) error {
	if p.GetStatus().GetMove().GetRestore() != nil {
		return s.decideRestore(ctx, p)
	}
	name, to := p.GetMetadata().GetName(), p.GetStatus().GetMove().GetTo()
	d, err := demand(p)
	if err != nil {
		return fmt.Errorf("project %s: %w", name, err)
	}
	s.mu.Lock()
	if s.decided(p) {
		s.mu.Unlock()
		return nil // the mirror is older than our own decision
	}
	why := Admit(d, to, s.ledger.order)
	switch {
	case why != "":
	case len(d.Data) == 0:
		s.ledger.reserve(d, to)
	default:
		s.ledger.reservePlacement(d, placement{node: p.GetStatus().GetNodeRef(), to: to})
	}
	s.mu.Unlock()
	return s.answerMove(ctx, p, to, why)
}

// answerMove accepts the requested move or restore of a project on a node, or refuses it because of why.
func (s moves) answerMove(ctx context.Context, p *carav1.Project, node, why string) error {
	if why != "" {
		_, err := s.schedule(ctx, p, &carav1.ScheduleProjectRequest{Action: api.ScheduleRefuseMove, Message: why})
		return err
	}
	return s.assign(ctx, p, &carav1.ScheduleProjectRequest{Action: api.ScheduleAcceptMove, NodeRef: node})
}

// attempt is the last failed move of a project, in the memory of the scheduler.
type attempt struct {
	at       time.Time
	failures int // in a row
	why      string
}

// Limits of the time after which a drain repeats a failed move.
const (
	minMoveWait = time.Minute
	maxMoveWait = time.Hour
)

// due returns when a drain may repeat the move. The wait doubles with each failure.
func (a attempt) due() time.Time {
	wait := maxMoveWait
	if a.failures < 7 { // 64 minutes
		wait = min(wait, minMoveWait<<max(0, a.failures-1))
	}
	return a.at.Add(wait)
}

// noteAttempt records how the last attempt of a project ended, as its condition c says.
func noteAttempt(attempts map[string]attempt, name string, c *carav1.Condition, gone bool) {
	switch c.GetReason() {
	case api.ReasonMoveFailed, api.ReasonMoveCancelled, api.ReasonRestoreFailed, api.ReasonRestoreCancelled:
		if at := c.GetLastTransitionTime().AsTime(); c.GetStatus() != api.StatusTrue && at.After(attempts[name].at) {
			attempts[name] = attempt{at: at, failures: attempts[name].failures + 1, why: c.GetMessage()}
		}
	case api.ReasonMoved, api.ReasonRestored:
		delete(attempts, name)
	}
	if gone {
		delete(attempts, name)
	}
}

// requestMove requests the move of a project with its data, for a drain. A refusal counts as a failed move.
func (s moves) requestMove(ctx context.Context, p *carav1.Project, node string) error {
	name := p.GetMetadata().GetName()
	out, err := s.projects.MoveProject(ctx, &carav1.MoveProjectRequest{Name: name, To: node})
	if err != nil {
		return s.notRequested("move", name, s.attempts, nodeKey(p.GetStatus().GetNodeRef()), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requestedAt(out)
	return nil
}

// notRequested decides about the error of a request. A refusal is noted in attempts, and the work on key explains it.
func (s moves) notRequested(what, name string, attempts map[string]attempt, key string, err error) error {
	switch {
	case api.IsNotFound(err), api.IsConflict(err):
		return nil // the change triggers another pass
	case api.Code(err) == codes.FailedPrecondition:
		s.mu.Lock()
		attempts[name] = attempt{at: time.Now(), failures: attempts[name].failures + 1, why: api.ProblemOf(err).GetDetail()}
		s.mu.Unlock()
		s.queue.Add(key)
		return nil
	}
	return fmt.Errorf("%s project %s: %w", what, name, err)
}
