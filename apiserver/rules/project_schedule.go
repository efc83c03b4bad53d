package rules

import (
	"cmp"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ApplyDecision writes what the scheduler has decided for a project. p is the transaction's own copy.
func ApplyDecision(t *state.Tx, p *carav1.Project, req *carav1.ScheduleProjectRequest) error {
	st := p.GetStatus()
	switch req.GetAction() {
	case api.ScheduleBind:
		return bindProject(t, p, req)
	case api.ScheduleMove:
		if req.GetNodeRef() == st.GetNodeRef() {
			return api.Conflict("project %q is on node %s already", req.GetName(), st.GetNodeRef())
		}
		return reassignProject(t, p, req)
	case api.ScheduleExplain:
		return explainProject(t, p, req)
	case api.ScheduleEvict:
		return evictProject(t, p, req)
	case api.ScheduleAcceptMove:
		return acceptMove(t, p, req)
	case api.ScheduleRefuseMove:
		return refuseMove(t, p, req)
	case api.ScheduleAbandon:
		return MovePhase(t, p, api.PhaseTerminated, api.RoleScheduler, api.Reason(cmp.Or(req.GetReason(), api.ReasonAbandoned)),
			cmp.Or(req.GetMessage(), "its node is lost: what it ran is swept when it comes back"))
	}
	return api.Invalid("the request", api.Field("action", "is %q; it must be Bind, Move, Explain, Evict, Abandon, AcceptMove or RefuseMove", req.GetAction()))
}

// reassignProject assigns a project to another node in one transaction.
func reassignProject(t *state.Tx, p *carav1.Project, req *carav1.ScheduleProjectRequest) error {
	if err := evictProject(t, p, req); err != nil {
		return err
	}
	return bindProject(t, p, &carav1.ScheduleProjectRequest{
		Name: req.GetName(), NodeRef: req.GetNodeRef(), Message: "assigned to " + req.GetNodeRef() + ": " + req.GetMessage(),
	})
}

func bindProject(t *state.Tx, p *carav1.Project, req *carav1.ScheduleProjectRequest) error {
	st := p.GetStatus()
	if _, ok := state.Read[*carav1.Node](t, req.GetNodeRef()); !ok {
		return NotFound(api.KindNode, req.GetNodeRef())
	}
	if st.GetPhase() == api.PhaseScheduled { // CheckMove allows this, but it would start a second copy
		return api.Conflict("project %q is on node %s already", req.GetName(), st.GetNodeRef())
	}
	if err := placeVolumes(t, p, req.GetNodeRef()); err != nil {
		return err
	}
	st.NodeRef, st.Epoch = req.GetNodeRef(), st.GetEpoch()+1
	message := cmp.Or(req.GetMessage(), "assigned to "+req.GetNodeRef())
	SetCondition(t, p, &carav1.Condition{Type: api.CondScheduled, Status: api.StatusTrue, Reason: cmp.Or(req.GetReason(), api.ReasonScheduled), Message: message})
	awaitHolder(t, p)
	return MovePhase(t, p, api.PhaseScheduled, api.RoleScheduler, api.ReasonScheduled, message)
}

// evictProject removes a project from its node. It records the old node until the project runs again. So an operation that
// moves many projects one after the other knows which are still moving, even after a restart.
func evictProject(t *state.Tx, p *carav1.Project, req *carav1.ScheduleProjectRequest) error {
	st := p.GetStatus()
	if st.GetPhase() == api.PhasePending {
		return nil
	}
	from := st.GetNodeRef()
	message := cmp.Or(req.GetMessage(), "taken off "+from)
	reason := api.Reason(cmp.Or(req.GetReason(), api.ReasonEvicted))
	LeaveNode(t, p, reason, message)
	if err := MovePhase(t, p, api.PhasePending, api.RoleScheduler, reason, message); err != nil {
		return err
	}
	st.MovedFrom = cmp.Or(st.GetMovedFrom(), from)
	return nil
}

// explainProject sets the condition Scheduled: why a project waits for a node, or stays on a node that it should leave.
func explainProject(t *state.Tx, p *carav1.Project, req *carav1.ScheduleProjectRequest) error {
	c := &carav1.Condition{Type: api.CondScheduled, Reason: cmp.Or(req.GetReason(), api.ReasonUnschedulable), Message: req.GetMessage()}
	switch p.GetStatus().GetPhase() {
	case api.PhasePending:
		c.Status = api.StatusFalse
	case api.PhaseScheduled, api.PhaseRunning:
		c.Status = api.StatusTrue
	default:
		return api.Conflict("project %q is %s: the scheduler has nothing to say of it", req.GetName(), p.GetStatus().GetPhase())
	}
	SetCondition(t, p, c)
	return nil
}
