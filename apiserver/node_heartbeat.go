package apiserver

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// nodeConditions are those that an agent may report.
var nodeConditions = []string{api.CondEngineReady, api.CondDiskPressure, api.CondMemoryPressure} //nolint:gochecknoglobals // a table that never changes

// Heartbeat takes what the node itself says of its machine. It is no sign of life: only the agent's connection is, since
// a node without one can be told of no project.
func (s nodeService) Heartbeat(ctx context.Context, req *carav1.HeartbeatRequest) (*emptypb.Empty, error) {
	if node := identity.ActorOf(ctx).Node(); node != req.GetName() {
		return nil, api.Forbidden("node %q may not speak for node %q", node, req.GetName())
	}
	return &emptypb.Empty{}, s.heartbeat(ctx, req.GetName(), req.GetHeartbeat(), false)
}

// heartbeat takes one heartbeat, over the agent's connection or not. It notes a sign of life in memory, and writes what is
// more than that: a node that comes back, and what it says of itself where that is new.
func (s *Server) heartbeat(ctx context.Context, node string, hb *carav1.Heartbeat, connected bool) error {
	for _, c := range hb.GetConditions() {
		if !slices.Contains(nodeConditions, c.GetType()) {
			return api.Invalid("the heartbeat", api.Field("conditions", "has the type %q; an agent reports %v", c.GetType(), nodeConditions))
		}
	}
	n, ok := state.Get[*carav1.Node](s.db.Cache, node)
	if !ok {
		return api.NotFound("node %q is not registered: it was deleted, join again", node)
	}
	if connected {
		s.beats.note(node, s.db.Now())
	}
	if hb.GetInfo() != nil {
		s.infos.note(node, hb.GetInfo())
	}
	here := onThisHost(ctx)
	if next := afterHeartbeat(n, hb, connected, here, s.db.Now()); next == n {
		return nil
	}
	err := s.db.Transact(ctx, func(t *state.Tx) error {
		n, ok := state.Read[*carav1.Node](t, node)
		if !ok {
			return notFound(api.KindNode, node)
		}
		next := afterHeartbeat(n, hb, connected, here, t.Now)
		if next == n {
			return nil
		}
		if connected && n.GetStatus().GetState() == api.NodeNotReady {
			recordEvent(t, refTo(n), api.EventNormal, api.ReasonNodeReady, "the agent has connected")
		}
		t.Put(next)
		return nil
	})
	if api.IsConflict(err) { // to an agent ABORTED means that another has taken over
		return api.Unavailable("%v", api.ProblemOf(err).GetDetail())
	}
	return err
}

// afterHeartbeat is the node after a heartbeat: n itself where it says nothing that is worth a write. Only one over the agent's
// connection makes it Ready. here tells whether it came from the server's host.
func afterHeartbeat(n *carav1.Node, hb *carav1.Heartbeat, connected, here bool, now time.Time) *carav1.Node {
	conditions, state, changed := n.GetStatus().GetConditions(), n.GetStatus().GetState(), false
	if connected {
		state = nodeState(n, true)
		conditions, changed = api.SetCondition(conditions, &carav1.Condition{
			Type: api.CondReady, Status: api.StatusTrue, Reason: api.ReasonHeartbeat, Message: "the agent is connected",
		}, now)
	}
	for _, c := range hb.GetConditions() {
		var more bool
		conditions, more = api.SetCondition(conditions, c, now)
		changed = changed || more
	}
	info := n.GetStatus().GetInfo()
	if hb.GetInfo() != nil && !sameInfo(info, hb.GetInfo()) {
		info, changed = hb.GetInfo(), true
	}
	if hb.GetInfo() != nil {
		var more bool
		if bad := ingressCondition(hb.GetInfo(), here); bad != nil {
			conditions, more = api.SetCondition(conditions, bad, now)
		} else {
			conditions, more = api.RemoveCondition(conditions, api.CondIngressReachable)
		}
		changed = changed || more
	}
	if !changed && state == n.GetStatus().GetState() {
		return n
	}
	next := proto.CloneOf(n)
	next.Status.State, next.Status.Conditions, next.Status.Info = state, conditions, proto.CloneOf(info)
	if connected {
		next.Status.LastHeartbeat = timestamppb.New(now)
	}
	return next
}

// sameInfo leaves out how much of the disk is free: that changes all the time, and is laid over answers from memory.
func sameInfo(a, b *carav1.NodeInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	bare := func(i *carav1.NodeInfo) *carav1.NodeInfo {
		i = proto.CloneOf(i)
		if i.GetCapacity() != nil {
			i.Capacity.DiskFree = ""
		}
		return i
	}
	return proto.Equal(bare(a), bare(b))
}

// MarkNodeNotReady is how the scheduler says that heartbeats stopped. It says on which last heartbeat it decided, so
// that one that came meanwhile counts.
func (s nodeService) MarkNodeNotReady(ctx context.Context, req *carav1.MarkNodeNotReadyRequest) (*carav1.Node, error) {
	var out *carav1.Node
	err := s.db.Transact(ctx, func(t *state.Tx) error {
		n, ok := state.Read[*carav1.Node](t, req.GetName())
		if !ok {
			return notFound(api.KindNode, req.GetName())
		}
		out = n
		if n.GetStatus().GetState() == api.NodeNotReady {
			return nil
		}
		last := s.beats.of(req.GetName())
		heard := !last.IsZero()
		if heard != (req.GetLastHeartbeat() != nil) || heard && !last.Equal(req.GetLastHeartbeat().AsTime()) {
			return api.Conflict("node %q was heard of since: it stays as it is", req.GetName())
		}
		out = proto.CloneOf(n)
		out.Status.State = api.NodeNotReady
		if heard {
			out.Status.LastHeartbeat = timestamppb.New(last)
		}
		out.Status.Conditions, _ = api.SetCondition(out.GetStatus().GetConditions(), &carav1.Condition{
			Type: api.CondReady, Status: api.StatusFalse, Reason: api.ReasonHeartbeatsStopped, Message: req.GetMessage(),
		}, t.Now)
		recordEvent(t, refTo(n), api.EventWarning, api.ReasonNodeNotReady, req.GetMessage())
		t.Put(out)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.releaseLost(ctx); err != nil {
		return nil, err
	}
	return s.overlayNode(out), nil
}
