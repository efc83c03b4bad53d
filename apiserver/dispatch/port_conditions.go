package dispatch

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// portsReady is the condition PortsReady.
func (d Conditions) portsReady() keptCondition {
	return keptCondition{
		kind: api.CondPortsReady, can: hasPorts, also: d.alsoPorts, record: recordPorts,
		of: func(r state.Reader, p *carav1.Project) *carav1.Condition {
			nodes, _ := state.List[*carav1.Node](r, "", "")
			return api.PortsCondition(p, nodes)
		},
	}
}

func hasPorts(p *carav1.Project) bool { return len(p.GetSpec().GetPorts()) > 0 }

func (d Conditions) alsoPorts(ch *state.Change) []string {
	if ch.Kind == api.KindNode && !samePorts(ch.Old, ch.New) {
		return projectsWithPorts(d.DB.Cache)
	}
	return nil
}

// samePorts reports whether a change of a node does not matter to ports.
func samePorts(before, after proto.Message) bool {
	part := func(m proto.Message) *carav1.NodeStatus {
		n, ok := m.(*carav1.Node)
		if !ok {
			return &carav1.NodeStatus{}
		}
		st := n.GetStatus()
		return &carav1.NodeStatus{State: st.GetState(), Ports: st.GetPorts(), Info: &carav1.NodeInfo{PortOffer: st.GetInfo().GetPortOffer()}}
	}
	return proto.Equal(part(before), part(after))
}

// projectsWithPorts returns the projects that have claimed ports, sorted.
func projectsWithPorts(r state.Reader) []string {
	claims, _ := state.List[*carav1.PortClaim](r, "", "")
	names := make([]string, 0, len(claims))
	for _, c := range claims {
		names = append(names, c.GetProject())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// recordPorts records an event for a condition that people may have to act on, and for its end.
func recordPorts(t *state.Tx, p *carav1.Project, c *carav1.Condition) {
	had := api.FindCondition(p.GetStatus().GetConditions(), api.CondPortsReady)
	switch reason := c.GetReason(); {
	case c == nil, reason == had.GetReason() && c.GetMessage() == had.GetMessage():
	case reason == api.ReasonPortNotOffered:
		rules.RecordEvent(t, rules.RefTo(p), api.EventWarning, api.ReasonPortNotOffered, c.GetMessage())
	case reason == api.ReasonPortNotOpen:
		rules.RecordEvent(t, rules.RefTo(p), api.EventWarning, api.ReasonPortNotOpen, c.GetMessage())
	case c.GetStatus() == api.StatusTrue && had.GetStatus() != api.StatusTrue:
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonPortsOpen, c.GetMessage())
	}
}
