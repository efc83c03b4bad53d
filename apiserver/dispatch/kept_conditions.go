package dispatch

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ingressReady is the condition IngressReady.
func (d Conditions) ingressReady() keptCondition {
	return keptCondition{
		kind: api.CondIngressReady, can: canLackIngress, also: d.alsoIngress, record: recordIngress,
		of: func(r state.Reader, p *carav1.Project) *carav1.Condition {
			return api.IngressCondition(p, d.DB.Hosts.Template, state.List[*carav1.Node](r, ""), func(secret string) string {
				_, problem := rules.PasswordList(r, d.DB.Vault, secret)
				return problem
			})
		},
	}
}

// canLackIngress reports whether a project has a rule that can be unusable.
func canLackIngress(p *carav1.Project) bool {
	return hasPublic(p) || slices.ContainsFunc(p.GetSpec().GetIngress(), func(in *carav1.Ingress) bool { return in.GetAccess().GetBasicAuth() != nil })
}

func hasPublic(p *carav1.Project) bool {
	return slices.ContainsFunc(p.GetSpec().GetIngress(), api.Public)
}

func (d Conditions) alsoIngress(ch *state.Change) []string {
	switch {
	case ch.Kind == api.KindSecret:
		return d.DB.Cache.View().ProjectsUsingSecret(ch.Name)
	case ch.Kind == api.KindNode && !samePublic(ch.Old, ch.New):
		return projectsWhere(d.DB.Cache, hasPublic)
	}
	return nil
}

// samePublic reports whether a change of a node does not matter to public hosts.
func samePublic(before, after proto.Message) bool {
	type serving struct{ public, ready bool }
	of := func(m proto.Message) serving {
		st := state.As[*carav1.Node](m).GetStatus()
		return serving{st.GetPublicIngress(), st.GetPublicIngress() && st.GetState() != api.NodeNotReady}
	}
	return of(before) == of(after)
}

// recordIngress records an event for a rule that clients cannot use, and for its end.
func recordIngress(t *state.Tx, p *carav1.Project, c *carav1.Condition) {
	had := api.FindCondition(p.GetStatus().GetConditions(), api.CondIngressReady)
	switch {
	case c == nil && had != nil && !api.GoingAway(p):
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonIngressServed, "clients can use all ingress rules")
	case c != nil && (c.GetReason() != had.GetReason() || c.GetMessage() != had.GetMessage()):
		rules.RecordEvent(t, rules.RefTo(p), api.EventWarning, api.Reason(c.GetReason()), c.GetMessage())
	}
}

// introduce stores whether the agent of a node serves public hosts.
func (d *Dispatcher) introduce(ctx context.Context, node string, capabilities []string) error {
	public := slices.Contains(capabilities, api.CapabilityPublicIngress)
	if n, ok := state.Get[*carav1.Node](d.DB.Cache, node); !ok || n.GetStatus().GetPublicIngress() == public {
		return nil
	}
	return heartbeatError(d.DB.Transact(ctx, func(t *state.Tx) error {
		_, err := rules.Edit(t, node, func(n *carav1.Node) error { n.Status.PublicIngress = public; return nil })
		return err
	}))
}

// portsReady is the condition PortsReady.
func (d Conditions) portsReady() keptCondition {
	return keptCondition{
		kind: api.CondPortsReady, can: hasPorts, also: d.alsoPorts, record: recordPorts,
		of: func(r state.Reader, p *carav1.Project) *carav1.Condition {
			return api.PortsCondition(p, state.List[*carav1.Node](r, ""))
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
	var names []string
	for _, c := range state.List[*carav1.PortClaim](r, "") {
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
	case reason == api.ReasonPortNotOffered, reason == api.ReasonPortNotOpen:
		rules.RecordEvent(t, rules.RefTo(p), api.EventWarning, api.Reason(reason), c.GetMessage())
	case c.GetStatus() == api.StatusTrue && had.GetStatus() != api.StatusTrue:
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonPortsOpen, c.GetMessage())
	}
}
