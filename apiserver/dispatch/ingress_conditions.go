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
			nodes, _ := state.List[*carav1.Node](r, "", "")
			return api.IngressCondition(p, d.DB.Hosts.Template, nodes, func(secret string) string {
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
	serves := func(m proto.Message) (public, ready bool) {
		n, _ := m.(*carav1.Node)
		public = n.GetStatus().GetPublicIngress()
		return public, public && n.GetStatus().GetState() != api.NodeNotReady
	}
	publicBefore, readyBefore := serves(before)
	public, ready := serves(after)
	return public == publicBefore && ready == readyBefore
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
		n, ok := state.Read[*carav1.Node](t, node)
		if !ok {
			return rules.NotFound(api.KindNode, node)
		}
		next := proto.CloneOf(n)
		next.Status.PublicIngress = public
		t.Put(next)
		return nil
	}))
}
