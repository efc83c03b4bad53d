package dispatch

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
	"github.com/caravanserai/cara/store"
)

// DeleteNode removes a node that has no projects, and its certificates. An agent that still runs there has no access until
// it joins again.
func (d *Dispatcher) DeleteNode(ctx context.Context, req *carav1.DeleteRequest) (*emptypb.Empty, error) {
	name := req.GetName()
	err := d.DB.Transact(ctx, func(t *state.Tx) error {
		n, err := rules.Named[*carav1.Node](t, name, req.GetUid(), "")
		if err != nil {
			return err
		}
		if count := len(t.Seen.ProjectsOnNode(name)); count > 0 {
			return api.BadState("node %q has %s: drain it first (caractrl drain %s); if the machine is gone for good, restore those that have backups (caractrl restore NAME) and delete the others that have their data there (caractrl delete project NAME --force)", name, text.Count(count, "project"), name)
		}
		for _, project := range t.Seen.ProjectsHeldBy(name) {
			return api.BadState("node %q still stops project %q, which has moved: try again in a moment", name, project)
		}
		rules.EndMovesTo(t, name)
		message := "deleted by " + t.Actor.Name
		if count := len(t.Seen.VolumesOnNode(name)); count > 0 {
			message += "; the data of " + text.Count(count, "volume") + " is Lost until its machine joins again under this name"
		}
		rules.RecordEvent(t, rules.RefTo(n), api.EventNormal, api.ReasonDeleted, message)
		t.Remove(api.KindNode, name)
		removeTokens(t, identity.NodeTokenPrefix(name), "")
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.Objects.Live.ForgetNode(name)
	d.Sessions.end(name, errDeleted(name))
	return &emptypb.Empty{}, nil
}

// MarkNodeNotReady records that a node's heartbeats stopped. The scheduler sends the last heartbeat that it knew, so a
// newer heartbeat prevents the change. A server that has the node's agent decides itself: see Holders.WatchSilence.
func (d *Dispatcher) MarkNodeNotReady(ctx context.Context, req *carav1.MarkNodeNotReadyRequest) (*carav1.Node, error) {
	n, err := d.Holders().markNotReady(ctx, req.GetName(), req.GetMessage(), func() error {
		if d.Directory != nil {
			if h, ok := d.Directory.Holder(req.GetName()); ok && h.Server != d.Directory.Self() {
				return api.Conflict("the agent of node %q is connected to another server: it stays as it is", req.GetName())
			}
		}
		last := d.Objects.Live.LastBeat(req.GetName(), d.DB.Now())
		if heard := !last.IsZero(); heard != (req.GetLastHeartbeat() != nil) || heard && last.Sub(req.GetLastHeartbeat().AsTime()).Abs() > sameBeat {
			return errHeard(req.GetName())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d.Objects.OverlayNode(n), nil
}

// sameBeat is how much the time of one heartbeat may differ between two answers after somebody has set the clock. Two heartbeats are
// farther apart.
const sameBeat = 100 * time.Millisecond

func errHeard(node string) error {
	return api.Conflict("node %q was heard of since: it stays as it is", node)
}

// markNotReady makes a node NotReady and releases what it holds. still returns an error if the node is heard of. What the directory says may
// be older than the node, which has become Ready because its agent has just connected to another server. So the write requires that the
// agent's record is the one of the directory.
func (h Holders) markNotReady(ctx context.Context, name, message string, still func() error) (*carav1.Node, error) {
	var out *carav1.Node
	err := h.DB.Transact(ctx, func(t *state.Tx) error {
		n, ok := state.Read[*carav1.Node](t, name)
		if !ok {
			return rules.NotFound(api.KindNode, name)
		}
		out = n
		if n.GetStatus().GetState() == api.NodeNotReady {
			return nil
		}
		if h.Directory != nil { // before still asks it
			holder, _ := h.Directory.Holder(name)
			t.Agent = store.AgentRecord{Node: name, Modified: holder.Since}
		}
		if err := still(); err != nil {
			return err
		}
		out = proto.CloneOf(n)
		out.Status.State = api.NodeNotReady
		if last := h.Live.LastBeat(name, h.DB.Now()); !last.IsZero() {
			out.Status.LastHeartbeat = timestamppb.New(last)
		}
		out.Status.Conditions, _ = api.SetCondition(out.GetStatus().GetConditions(), &carav1.Condition{
			Type: api.CondReady, Status: api.StatusFalse, Reason: api.ReasonHeartbeatsStopped, Message: message,
		}, t.Now)
		rules.RecordEvent(t, rules.RefTo(n), api.EventWarning, api.ReasonNodeNotReady, message)
		t.Put(out)
		return nil
	})
	if err == nil {
		err = Handover{h.DB}.ReleaseLost(ctx)
	}
	return out, err
}
