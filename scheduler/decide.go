package scheduler

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
)

// place binds a Pending project to a node, or writes why no node fits.
func (s *Scheduler) place(ctx context.Context, p *carav1.Project) (time.Duration, error) {
	name := p.GetMetadata().GetName()
	d, err := demand(p)
	if err != nil {
		return 0, fmt.Errorf("project %s: %w", name, err)
	}
	if len(d.Data) == 0 && restoring(p) { // it must not start on empty volumes meanwhile
		return 0, s.explain(ctx, p, api.StatusFalse, api.ReasonRestoring, "its data is being restored on node "+p.GetStatus().GetMove().GetTo())
	}
	s.mu.Lock()
	if s.decided(p) {
		s.mu.Unlock()
		return 0, nil // the mirror is older than our own bind
	}
	v := Place(d, s.ledger.order, s.cfg.Strategy)
	s.reserveOrWait(d, v.Node)
	s.mu.Unlock()
	if v.Node == "" {
		return s.cannotPlace(ctx, p, d, v)
	}
	return 0, s.assign(ctx, p, &carav1.ScheduleProjectRequest{Action: api.ScheduleBind, NodeRef: v.Node})
}

// cannotPlace writes why a Pending project fits on no node. If its data is on a lost node, a backup may replace it.
func (s *Scheduler) cannotPlace(ctx context.Context, p *carav1.Project, d Demand, v Verdict) (time.Duration, error) {
	say := func(why string) error {
		return s.explain(ctx, p, api.StatusFalse, api.ReasonUnschedulable, why)
	}
	if recovers(p, &d) {
		n, exists := loop.Get[*carav1.Node](s.mirror, d.Data[0].Node)
		if !exists || n.GetStatus().GetState() == api.NodeNotReady {
			return moves{s}.restoreLost(ctx, p, d, n, func(why string) error { return say(v.Explain() + "; the project waits, " + why) })
		}
	}
	return 0, say(v.Explain())
}

// assign writes a reserved assignment, and keeps the reservation until the mirror shows the commit.
func (s *Scheduler) assign(ctx context.Context, p *carav1.Project, req *carav1.ScheduleProjectRequest) error {
	name := p.GetMetadata().GetName()
	bound, err := s.schedule(ctx, p, req)
	s.mu.Lock()
	if bound != nil {
		s.ledger.settle(name, bound.revision)
		if now, ok := s.ledger.projects[name]; !ok || api.RevisionOf(now) >= bound.revision {
			s.ledger.drop(name) // the mirror was faster than the response
		}
	} else {
		s.ledger.drop(name)
	}
	s.mu.Unlock()
	if bound != nil {
		s.cfg.Logger.Info("project scheduled", "project", name, "node", req.GetNodeRef(), "epoch", bound.epoch, "rev", bound.revision)
	}
	return err
}

// explain writes why a project is Pending, or stays on a node that it should leave. It writes nothing if the project says so
// already.
func (s *Scheduler) explain(ctx context.Context, p *carav1.Project, status, reason, message string) error {
	c := api.FindCondition(p.GetStatus().GetConditions(), api.CondScheduled)
	if c.GetStatus() == status && c.GetReason() == reason && c.GetMessage() == message {
		return nil
	}
	_, err := s.schedule(ctx, p, &carav1.ScheduleProjectRequest{Action: api.ScheduleExplain, Reason: reason, Message: message})
	return err
}

// keep leaves an assigned project on its node, unless the node was lost for too long, is draining, or has no room for the
// project's new requests.
func (s *Scheduler) keep(ctx context.Context, p *carav1.Project) (time.Duration, error) {
	name, node := p.GetMetadata().GetName(), p.GetStatus().GetNodeRef()
	s.mu.Lock()
	delete(s.waiting, name)
	s.mu.Unlock()
	n, ok := loop.Get[*carav1.Node](s.mirror, node)
	switch {
	case !ok:
		return 0, s.evict(ctx, p, api.ReasonNodeGone, fmt.Sprintf("node %s was deleted", node))
	case n.GetStatus().GetState() == api.NodeNotReady:
		return s.keepLost(ctx, p, n)
	case n.GetSpec().GetDraining():
		return 0, nil // the pass over the node moves it
	}
	s.mu.Lock()
	why := s.misfit(p, s.ledger.nodes[node])
	s.mu.Unlock()
	switch {
	case why == HostVolume && p.GetStatus().GetPhase() == api.PhaseRunning:
		return 0, s.explain(ctx, p, api.StatusTrue, api.ReasonNoLongerFits, fmt.Sprintf(
			"node %s does not offer all host volumes of project %s any more (cara-agent --host-volume); the project stays", node, name))
	case why == NoData:
		return 0, s.moveIfFits(ctx, p, fmt.Sprintf("node %s does not have all data of project %s", node, name))
	case why != Fits:
		return 0, s.moveIfFits(ctx, p, fmt.Sprintf("project %s does not fit node %s any more: %s", name, node, why))
	}
	switch api.FindCondition(p.GetStatus().GetConditions(), api.CondScheduled).GetReason() {
	case api.ReasonNodeDraining, api.ReasonNoLongerFits, api.ReasonNodeLost:
		return 0, s.explain(ctx, p, api.StatusTrue, api.ReasonScheduled, "stays on "+node)
	}
	return 0, nil
}

// moveIfFits moves a project that has outgrown its node to another node with room. If there is none, or the project's data is
// on its node, the project stays, its condition says so, and it is checked again when a node has room.
func (s *Scheduler) moveIfFits(ctx context.Context, p *carav1.Project, message string) error {
	d, err := demand(p)
	if err != nil {
		return err
	}
	node := p.GetStatus().GetNodeRef()
	bound := d.bound(node)
	if bound == "" && api.UpdateFailed(p) {
		return s.explain(ctx, p, api.StatusTrue, api.ReasonNoLongerFits, message+"; the project stays, "+staysUpdateFailed)
	}
	s.mu.Lock()
	v := Place(d, without(s.ledger.order, node), s.cfg.Strategy)
	s.reserveOrWait(d, v.Node)
	s.mu.Unlock()
	switch {
	case bound != "":
		return s.explain(ctx, p, api.StatusTrue, api.ReasonNoLongerFits, message+"; the project stays, "+bound)
	case v.Node == "":
		return s.explain(ctx, p, api.StatusTrue, api.ReasonNoLongerFits, message+"; of the others "+v.Explain())
	}
	return s.assign(ctx, p, &carav1.ScheduleProjectRequest{Action: api.ScheduleMove, NodeRef: v.Node, Reason: api.ReasonNoLongerFits, Message: message})
}

func (s *Scheduler) evict(ctx context.Context, p *carav1.Project, reason, message string) error {
	out, err := s.schedule(ctx, p, &carav1.ScheduleProjectRequest{Action: api.ScheduleEvict, Reason: reason, Message: message})
	if out != nil {
		s.cfg.Logger.Info("project evicted", "project", p.GetMetadata().GetName(), "node", p.GetStatus().GetNodeRef(), "reason", reason)
	}
	return err
}

// abandon stops waiting for a lost node to confirm that a Terminating project is gone.
func (s *Scheduler) abandon(ctx context.Context, p *carav1.Project) (time.Duration, error) {
	node := p.GetStatus().GetNodeRef()
	n, ok := loop.Get[*carav1.Node](s.mirror, node)
	if ok && n.GetStatus().GetState() != api.NodeNotReady {
		return 0, nil
	}
	if ok {
		if left := time.Until(s.lostSince(n).Add(s.cfg.AbandonAfter)); left > 0 {
			return left, nil
		}
	}
	_, err := s.schedule(ctx, p, &carav1.ScheduleProjectRequest{
		Action: api.ScheduleAbandon, Reason: api.ReasonNodeLost, Message: fmt.Sprintf("node %s is lost; what it ran is swept when it comes back", node),
	})
	return 0, err
}

// passNode marks a node as lost if its heartbeats stopped. Otherwise it returns when the next heartbeat would be overdue.
func (s *Scheduler) passNode(ctx context.Context, name string) (time.Duration, error) {
	n, err := s.nodes.GetNode(ctx, &carav1.GetRequest{Name: name})
	if api.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("get node %s: %w", name, err)
	}
	if n.GetStatus().GetState() == api.NodeNotReady || n.GetStatus().GetState() == "" {
		return 0, nil // its next heartbeat triggers a pass
	}
	silent := silence(time.Now(), s.started, n.GetStatus().GetLastHeartbeat())
	if left := s.cfg.HeartbeatTimeout - silent; left > 0 {
		return left, nil
	}
	return s.markLost(ctx, n, silent)
}

// silence returns for how long a node has been silent, and at most for how long the scheduler runs. The server tells the heartbeat by the clock
// of now. The start has a monotonic reading, so the two are not compared: somebody may have set the clock between them.
func silence(now, started time.Time, heartbeat *timestamppb.Timestamp) time.Duration {
	runs := now.Sub(started)
	if heartbeat == nil {
		return runs
	}
	return min(runs, max(0, now.Sub(heartbeat.AsTime())))
}

// markLost marks a node as lost, unless a heartbeat arrived meanwhile.
func (s *Scheduler) markLost(ctx context.Context, n *carav1.Node, silent time.Duration) (time.Duration, error) {
	name := n.GetMetadata().GetName()
	_, err := s.nodes.MarkNodeNotReady(ctx, &carav1.MarkNodeNotReadyRequest{
		Name: name, LastHeartbeat: n.GetStatus().GetLastHeartbeat(), Message: api.NodeSilence(name, n.GetStatus().GetLastHeartbeat(), s.cfg.HeartbeatTimeout),
	})
	if api.IsConflict(err) {
		return s.cfg.HeartbeatTimeout / 4, nil // a heartbeat arrived meanwhile
	}
	if err != nil && !api.IsNotFound(err) {
		return 0, fmt.Errorf("mark node %s not ready: %w", name, err)
	}
	s.cfg.Logger.Warn("node lost", "node", name, "silent", silent.Round(time.Second))
	return 0, nil
}
