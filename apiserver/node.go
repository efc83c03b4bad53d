package apiserver

import (
	"context"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// CreateNode registers a node before its agent joins.
func (s nodeService) CreateNode(ctx context.Context, req *carav1.CreateNodeRequest) (*carav1.Node, error) {
	var out *carav1.Node
	err := s.db.Transact(ctx, func(t *state.Tx) error {
		name := req.GetNode().GetMetadata().GetName()
		if _, exists := state.Read[*carav1.Node](t, name); exists {
			return api.AlreadyExists("node %q already exists", name)
		}
		_, out = declareNode(t, req.GetNode())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.overlayNode(out), answerCreated(ctx)
}

// PutNode creates or replaces a node's labels, annotations and spec.
func (s nodeService) PutNode(ctx context.Context, req *carav1.PutNodeRequest) (*carav1.Node, error) {
	want := ifMatch(ctx, req.GetNode().GetMetadata().GetResourceVersion())
	var before, out *carav1.Node
	err := s.db.Transact(ctx, func(t *state.Tx) error {
		if err := mustMatch(t, api.KindNode, req.GetNode(), want); err != nil {
			return err
		}
		before, out = declareNode(t, req.GetNode())
		return nil
	})
	if err != nil {
		return nil, err
	}
	if before == nil {
		return s.overlayNode(out), answerCreated(ctx)
	}
	return s.overlayNode(out), nil
}

// GetNode returns one node.
func (s nodeService) GetNode(_ context.Context, req *carav1.GetRequest) (*carav1.Node, error) {
	n, ok := state.Get[*carav1.Node](s.db.Cache, req.GetName())
	if !ok {
		return nil, notFound(api.KindNode, req.GetName())
	}
	return s.overlayNode(n), nil
}

// ListNodes returns nodes in the order of their names.
func (s nodeService) ListNodes(_ context.Context, req *carav1.ListRequest) (*carav1.ListNodesResponse, error) {
	match, err := labelMatch[*carav1.Node](req.GetLabelSelector())
	if err != nil {
		return nil, err
	}
	items, meta := state.Page(s.db.Cache, "", req.GetPageToken(), req.GetLimit(), match)
	for i, n := range items {
		items[i] = s.overlayNode(n)
	}
	return &carav1.ListNodesResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindNode), Items: items, Metadata: meta}, nil
}

// WatchNodes streams nodes. Heartbeats are no change.
func (s nodeService) WatchNodes(req *carav1.WatchObjectsRequest, out carav1.NodeService_WatchNodesServer) error {
	match, err := labelMatch[*carav1.Node](req.GetLabelSelector())
	if err != nil {
		return err
	}
	return watchKind(out.Context(), s.Server, req.GetResourceVersion(), match, func(typ string, object *carav1.Node, rev string) error {
		if object != nil && typ != api.WatchDeleted {
			object = s.overlayNode(object)
		}
		return out.Send(&carav1.NodeEvent{Type: typ, Object: object, ResourceVersion: rev})
	})
}

// DeleteNode removes a node that has no projects. Its certificates go with it: an agent that still runs there is shut
// out until it joins again.
func (s nodeService) DeleteNode(ctx context.Context, req *carav1.DeleteRequest) (*emptypb.Empty, error) {
	name := req.GetName()
	err := s.db.Transact(ctx, func(t *state.Tx) error {
		n, ok := state.Read[*carav1.Node](t, name)
		if !ok {
			return notFound(api.KindNode, name)
		}
		if err := mustBe(n, req.GetUid(), ""); err != nil {
			return err
		}
		if count := len(t.Seen.ProjectsOnNode(name)); count > 0 {
			return api.BadState("node %q has %d projects: drain it first (caractrl drain %s)", name, count, name)
		}
		for _, p := range held(t.Seen) {
			if p.GetStatus().GetHeldBy() == name {
				return api.BadState("node %q still stops project %q, which has moved: try again in a moment", name, p.GetMetadata().GetName())
			}
		}
		recordEvent(t, refTo(n), api.EventNormal, api.ReasonDeleted, "deleted by "+t.Actor.Name)
		t.Remove(api.KindNode, name)
		removeTokens(t, identity.NodeTokenPrefix(name), "")
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.beats.forget(name)
	s.infos.forget(name)
	s.sessions.end(name, api.Forbidden("node %q was deleted: join again to come back", name))
	return &emptypb.Empty{}, nil
}

// declareNode creates or changes a node as its operator wants it.
func declareNode(t *state.Tx, in *carav1.Node) (before, after *carav1.Node) {
	old, exists := state.Read[*carav1.Node](t, in.GetMetadata().GetName())
	if !exists {
		n := newNode(t, in.GetMetadata(), in.GetSpec())
		t.Put(n)
		return nil, n
	}
	labels, notes := in.GetMetadata().GetLabels(), in.GetMetadata().GetAnnotations()
	spec := in.GetSpec()
	if spec == nil {
		spec = &carav1.NodeSpec{}
	}
	sameSpec := proto.Equal(old.GetSpec(), spec)
	if sameSpec && sameMap(old.GetMetadata().GetLabels(), labels) && sameMap(old.GetMetadata().GetAnnotations(), notes) {
		return old, old
	}
	n := proto.CloneOf(old)
	meta := proto.CloneOf(in.GetMetadata())
	n.Metadata.Labels, n.Metadata.Annotations = meta.GetLabels(), meta.GetAnnotations()
	if !sameSpec {
		n.Spec = proto.CloneOf(spec)
		n.Metadata.Generation++
		recordEvent(t, refTo(n), api.EventNormal, api.ReasonSpecChanged, "changed by "+t.Actor.Name+": "+specWords(n.GetSpec()))
	}
	n.Status.State = nodeState(n, n.GetStatus().GetState() != api.NodeNotReady)
	beginDrain(t, n)
	t.Put(n)
	return old, n
}

// newNode makes the record of a node that has not been heard of.
func newNode(t *state.Tx, meta *carav1.ObjectMeta, spec *carav1.NodeSpec) *carav1.Node {
	meta = proto.CloneOf(meta)
	if spec == nil {
		spec = &carav1.NodeSpec{}
	}
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
	recordEvent(t, refTo(n), api.EventNormal, api.ReasonCreated, "registered")
	return n
}

// nodeState is the state of a node whose agent is heard of, or not.
func nodeState(n *carav1.Node, alive bool) string {
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

// applyNode is Apply for a node.
func (s *Server) applyNode(t *state.Tx, m proto.Message, _ applyTerms) (before, after proto.Message, err error) {
	old, now := declareNode(t, m.(*carav1.Node))
	if old == nil {
		return nil, now, nil
	}
	return old, now, nil
}
