package objects

import (
	"cmp"
	"context"
	"maps"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// CreateNode creates a node before its agent joins.
func (s Nodes) CreateNode(ctx context.Context, req *carav1.CreateNodeRequest) (*carav1.Node, error) {
	return create(ctx, s.DB, req.GetNode(), declareNode, s.OverlayNode)
}

// PutNode creates or replaces a node's labels, annotations and spec.
func (s Nodes) PutNode(ctx context.Context, req *carav1.PutNodeRequest) (*carav1.Node, error) {
	return put(ctx, s.DB, req.GetNode(), declareNode, s.OverlayNode)
}

// GetNode returns one node.
func (s Nodes) GetNode(_ context.Context, req *carav1.GetRequest) (*carav1.Node, error) {
	return shown(s.DB.Cache, req.GetName(), s.OverlayNode)
}

// ListNodes returns nodes sorted by name.
func (s Nodes) ListNodes(_ context.Context, req *carav1.ListRequest) (*carav1.ListNodesResponse, error) {
	items, meta, err := listed(s.DB.Cache, req, s.OverlayNode)
	return &carav1.ListNodesResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindNode), Items: items, Metadata: meta}, err
}

// WatchNodes streams nodes. A heartbeat is not a change.
func (s Nodes) WatchNodes(req *carav1.WatchObjectsRequest, out carav1.NodeService_WatchNodesServer) error {
	return watchKind(out.Context(), s.DB, req, s.OverlayNode, func(typ string, object *carav1.Node, rev string) error {
		return out.Send(&carav1.NodeEvent{Type: typ, Object: object, ResourceVersion: rev})
	})
}

// declareNode creates or changes a node.
func declareNode(t *state.Tx, in *carav1.Node) (before, after *carav1.Node, err error) {
	old, exists := state.Read[*carav1.Node](t, in.GetMetadata().GetName())
	if !exists {
		n := NewNode(t, in.GetMetadata(), in.GetSpec())
		t.Put(n)
		return nil, n, nil
	}
	labels, notes := in.GetMetadata().GetLabels(), in.GetMetadata().GetAnnotations()
	spec := cmp.Or(in.GetSpec(), &carav1.NodeSpec{})
	sameSpec := proto.Equal(old.GetSpec(), spec)
	if sameSpec && maps.Equal(old.GetMetadata().GetLabels(), labels) && maps.Equal(old.GetMetadata().GetAnnotations(), notes) {
		return old, old, nil
	}
	n := proto.CloneOf(old)
	meta := proto.CloneOf(in.GetMetadata())
	n.Metadata.Labels, n.Metadata.Annotations = meta.GetLabels(), meta.GetAnnotations()
	if !sameSpec {
		n.Spec = proto.CloneOf(spec)
		n.Metadata.Generation++
		rules.RecordEvent(t, rules.RefTo(n), api.EventNormal, api.ReasonSpecChanged, "changed by "+t.Actor.Name+": "+specWords(n.GetSpec()))
	}
	n.Status.State = NodeState(n, n.GetStatus().GetState() != api.NodeNotReady)
	beginDrain(t, n)
	t.Put(n)
	return old, n, nil
}

// NewNode creates a node that has sent no heartbeat yet.
func NewNode(t *state.Tx, meta *carav1.ObjectMeta, spec *carav1.NodeSpec) *carav1.Node {
	meta = proto.CloneOf(meta)
	spec = cmp.Or(spec, &carav1.NodeSpec{})
	n := &carav1.Node{
		ApiVersion: api.APIVersion,
		Kind:       api.KindNode,
		Metadata: &carav1.ObjectMeta{
			Name: meta.GetName(), Uid: state.NewUID(), Generation: 1, CreationTimestamp: timestamppb.New(t.Now),
			Labels: meta.GetLabels(), Annotations: meta.GetAnnotations(),
		},
		Spec:   proto.CloneOf(spec),
		Status: &carav1.NodeStatus{State: api.NodeNotReady},
	}
	n.Status.Conditions, _ = api.SetCondition(nil, &carav1.Condition{
		Type: api.CondReady, Status: api.StatusFalse, Reason: api.ReasonNeverConnected, Message: "no agent has connected as this node yet",
	}, t.Now)
	beginDrain(t, n)
	rules.RecordEvent(t, rules.RefTo(n), api.EventNormal, api.ReasonCreated, "registered")
	return n
}

// NodeState returns the state of a node, depending on whether its agent is alive.
func NodeState(n *carav1.Node, alive bool) string {
	switch {
	case !alive:
		return api.NodeNotReady
	case n.GetSpec().GetDraining():
		return api.NodeDraining
	default:
		return api.NodeReady
	}
}

func specWords(spec *carav1.NodeSpec) string {
	return "unschedulable=" + strconv.FormatBool(spec.GetUnschedulable()) + " draining=" + strconv.FormatBool(spec.GetDraining())
}

// beginDrain updates the condition Drained with the spec: absent while the node is not draining, False when draining
// begins. Only the scheduler sets it to True.
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

// MarkNodeDrained records that nothing runs on a draining node any more, or why its drain waits. It fails if the node has
// changed since the scheduler read it.
func (s Nodes) MarkNodeDrained(ctx context.Context, req *carav1.MarkNodeDrainedRequest) (*carav1.Node, error) {
	var out *carav1.Node
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		n, err := rules.Named[*carav1.Node](t, req.GetName(), "", req.GetResourceVersion())
		if err != nil {
			return err
		}
		if !n.GetSpec().GetDraining() {
			return api.Conflict("node %q is not draining", req.GetName())
		}
		drained := &carav1.Condition{Type: api.CondDrained, Status: api.StatusTrue, Reason: api.ReasonDrained, Message: req.GetMessage()}
		if req.GetWaits() {
			drained.Status, drained.Reason = api.StatusFalse, api.ReasonDraining
		} else if err := nothingRuns(t, req.GetName()); err != nil {
			return err
		}
		conditions, changed := api.SetCondition(n.GetStatus().GetConditions(), drained, t.Now)
		if out = n; !changed {
			return nil
		}
		out = proto.CloneOf(n)
		out.Status.Conditions = conditions
		if !req.GetWaits() {
			rules.RecordEvent(t, rules.RefTo(n), api.EventNormal, api.ReasonDrained, req.GetMessage())
		}
		t.Put(out)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.OverlayNode(out), nil
}

// nothingRuns returns an error if a node has projects that are not stopped.
func nothingRuns(t *state.Tx, node string) error {
	for _, name := range t.Seen.ProjectsOnNode(node) {
		p, _ := state.Get[*carav1.Project](t.Seen, name) // a draining node gets no new projects
		if phase := p.GetStatus().GetPhase(); phase != api.PhaseFailed && phase != api.PhaseTerminated {
			return api.Conflict("node %q is not drained: project %q is still there, %s", node, name, phase)
		}
	}
	return nil
}
