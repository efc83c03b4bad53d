package apiserver

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// beginDrain makes the condition Drained go with the spec: absent while the node is not draining, False from the moment
// that it is. Only the scheduler makes it True.
func beginDrain(t *state.Tx, n *carav1.Node) {
	st := n.GetStatus()
	switch have := api.FindCondition(st.GetConditions(), api.CondDrained); {
	case !n.GetSpec().GetDraining():
		st.Conditions, _ = api.RemoveCondition(st.GetConditions(), api.CondDrained)
	case have == nil:
		st.Conditions, _ = api.SetCondition(st.GetConditions(), &carav1.Condition{
			Type: api.CondDrained, Status: api.StatusFalse, Reason: api.ReasonDraining, Message: "its projects are leaving",
		}, t.Now)
	}
}

// MarkNodeDrained is how the scheduler says that nothing runs on a draining node any more, on exactly the state that it
// looked at.
func (s nodeService) MarkNodeDrained(ctx context.Context, req *carav1.MarkNodeDrainedRequest) (*carav1.Node, error) {
	var out *carav1.Node
	err := s.db.Transact(ctx, func(t *state.Tx) error {
		n, ok := state.Read[*carav1.Node](t, req.GetName())
		if !ok {
			return notFound(api.KindNode, req.GetName())
		}
		if err := mustBe(n, "", req.GetResourceVersion()); err != nil {
			return err
		}
		if !n.GetSpec().GetDraining() {
			return api.Conflict("node %q is not draining", req.GetName())
		}
		for _, name := range t.Seen.ProjectsOnNode(req.GetName()) {
			p, _ := state.Get[*carav1.Project](t.Seen, name) // while the node drains, none comes to it
			if phase := p.GetStatus().GetPhase(); phase != api.PhaseFailed && phase != api.PhaseTerminated {
				return api.Conflict("node %q is not drained: project %q is still there, %s",
					req.GetName(), name, phase)
			}
		}
		conditions, changed := api.SetCondition(n.GetStatus().GetConditions(), &carav1.Condition{
			Type: api.CondDrained, Status: api.StatusTrue, Reason: api.ReasonDrained, Message: req.GetMessage(),
		}, t.Now)
		if out = n; !changed {
			return nil
		}
		out = proto.CloneOf(n)
		out.Status.Conditions = conditions
		recordEvent(t, refTo(n), api.EventNormal, api.ReasonDrained, req.GetMessage())
		t.Put(out)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.overlayNode(out), nil
}
