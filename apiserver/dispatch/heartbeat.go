package dispatch

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// nodeConditions are the conditions that an agent may report.
var nodeConditions = []string{api.CondEngineReady, api.CondDiskPressure, api.CondMemoryPressure} //nolint:gochecknoglobals // a table that never changes

// Heartbeat stores what the node reports about its machine. It does not make a node Ready: only the agent's connection
// does, because a node without a connection cannot get projects.
func (d *Dispatcher) Heartbeat(ctx context.Context, req *carav1.HeartbeatRequest) (*emptypb.Empty, error) {
	if node := identity.ActorOf(ctx).Node(); node != req.GetName() {
		return nil, api.Forbidden("node %q may not speak for node %q", node, req.GetName())
	}
	return &emptypb.Empty{}, d.heartbeat(ctx, req.GetName(), req.GetHeartbeat(), false)
}

// heartbeat handles one heartbeat, from the agent's connection or not.
func (d *Dispatcher) heartbeat(ctx context.Context, node string, hb *carav1.Heartbeat, connected bool) error {
	if err := d.hear(node, hb, connected); err != nil {
		return err
	}
	return d.record(ctx, node, hb, connected)
}

// hear checks a heartbeat, and notes its time and what it says about the machine in memory.
func (d *Dispatcher) hear(node string, hb *carav1.Heartbeat, connected bool) error {
	for _, c := range hb.GetConditions() {
		if !slices.Contains(nodeConditions, c.GetType()) {
			return api.Invalid("the heartbeat", api.Field("conditions", "has the type %q; an agent reports %v", c.GetType(), nodeConditions))
		}
	}
	if _, ok := state.Get[*carav1.Node](d.DB.Cache, node); !ok {
		return errNotRegistered(node)
	}
	if connected {
		d.Objects.Live.Beats.Note(node, d.DB.Now())
	}
	if hb.GetInfo() != nil {
		d.Objects.Live.Infos.Note(node, hb.GetInfo())
	}
	return nil
}

func errNotRegistered(node string) error {
	return api.NotFound("node %q is not registered: it was deleted, join again", node)
}

// record takes the inventory of a heartbeat, and writes the node if it comes back or reports something new.
func (d *Dispatcher) record(ctx context.Context, node string, hb *carav1.Heartbeat, connected bool) error {
	n, ok := state.Get[*carav1.Node](d.DB.Cache, node)
	if !ok {
		return errNotRegistered(node)
	}
	if hb.GetVolumes() != nil {
		if err := (objects.Volumes{Service: d.Objects}).TakeInventory(ctx, node, hb.GetVolumes()); err != nil {
			return heartbeatError(err)
		}
	}
	here := d.onThisHost(ctx)
	if next := afterHeartbeat(n, hb, connected, here, d.DB.Now()); next == n {
		return nil
	}
	err := d.DB.Transact(ctx, func(t *state.Tx) error {
		n, ok := state.Read[*carav1.Node](t, node)
		if !ok {
			return rules.NotFound(api.KindNode, node)
		}
		next := afterHeartbeat(n, hb, connected, here, t.Now)
		if next == n {
			return nil
		}
		if connected && n.GetStatus().GetState() == api.NodeNotReady {
			rules.RecordEvent(t, rules.RefTo(n), api.EventNormal, api.ReasonNodeReady, "the agent has connected")
		}
		t.Put(next)
		return nil
	})
	return heartbeatError(err)
}

// heartbeatError returns the error for the agent. For an agent ABORTED means that another agent has taken over.
func heartbeatError(err error) error {
	if api.IsConflict(err) {
		return api.Unavailable("%v", api.ProblemOf(err).GetDetail())
	}
	return err
}

// afterHeartbeat returns the node after a heartbeat, or n itself if there is nothing to write. Only a heartbeat over the
// agent's connection makes the node Ready. here is true if the heartbeat came from the server's host.
func afterHeartbeat(n *carav1.Node, hb *carav1.Heartbeat, connected, here bool, now time.Time) *carav1.Node {
	conditions, state, changed := n.GetStatus().GetConditions(), n.GetStatus().GetState(), false
	set := func(typ string, c *carav1.Condition) {
		next, more := withCondition(conditions, typ, c, now)
		conditions, changed = next, changed || more
	}
	if connected {
		state = objects.NodeState(n, true)
		set(api.CondReady, &carav1.Condition{Type: api.CondReady, Status: api.StatusTrue, Reason: api.ReasonHeartbeat, Message: "the agent is connected"})
	}
	for _, c := range hb.GetConditions() {
		set(c.GetType(), c)
	}
	info := n.GetStatus().GetInfo()
	if hb.GetInfo() != nil {
		if !sameInfo(info, hb.GetInfo()) {
			info, changed = hb.GetInfo(), true
		}
		set(api.CondIngressReachable, ingressCondition(hb.GetInfo(), here))
	}
	ports := &carav1.PortReport{Ports: n.GetStatus().GetPorts()}
	if next := portReport(hb); next != nil {
		changed, ports = changed || !proto.Equal(ports, next), next
		set(api.CondPortsReady, api.NodePortsCondition(ports.GetPorts()))
	}
	if !changed && state == n.GetStatus().GetState() {
		return n
	}
	next := proto.CloneOf(n)
	next.Status.State, next.Status.Conditions, next.Status.Info = state, conditions, proto.CloneOf(info)
	next.Status.Ports = proto.CloneOf(ports).GetPorts()
	if connected {
		next.Status.LastHeartbeat = timestamppb.New(now)
	}
	return next
}

// portReport returns the ports of a heartbeat, or nil if the heartbeat says nothing about them. An agent of an older version
// opens none.
func portReport(hb *carav1.Heartbeat) *carav1.PortReport {
	if hb.GetPorts() == nil && hb.GetInfo() != nil && hb.GetInfo().GetPortOffer() == nil {
		return &carav1.PortReport{}
	}
	return hb.GetPorts()
}

// sameInfo ignores free disk space: it changes all the time, and reads add it from memory.
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

const (
	// HeartbeatInterval is the interval that the server asks agents to keep.
	HeartbeatInterval = 5 * time.Second
	// NodeLease is how long a node stays Ready after its last heartbeat.
	NodeLease = 20 * time.Second
)
