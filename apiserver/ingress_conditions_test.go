package apiserver

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestIngressConditions: a project says why clients cannot use one of its ingress rules, and what to do. The condition ends when
// that is done.
func TestIngressConditions(t *testing.T) {
	c := newCluster(t, nil)
	p := web("shop")
	const host = "shop.example"
	p.Spec.Ingress = []*carav1.Ingress{{
		Name: "web", Host: host, Target: &carav1.IngressTarget{Service: "web", Port: 80},
		Access: &carav1.IngressAccess{Scope: api.ScopePublic, BasicAuth: &carav1.IngressBasicAuth{SecretRef: "users"}},
	}}
	c.create(t, p)
	is := func(reason string, texts ...string) {
		t.Helper()
		var message string
		eventually(t, "IngressReady is "+reason+" with "+strings.Join(texts, " and "), func() bool {
			p, _ := state.Get[*carav1.Project](c.db.Cache, "shop")
			got := api.FindCondition(p.GetStatus().GetConditions(), api.CondIngressReady)
			message = got.GetMessage()
			for _, text := range texts {
				if !strings.Contains(message, text) {
					return false
				}
			}
			return got.GetReason() == reason && (reason == "") == (got.GetStatus() != api.StatusFalse)
		})
		if strings.Contains(message, "nonsense") {
			t.Errorf("the condition has a part of the Secret: %s", message)
		}
	}
	missing := "answers 503, because Secret users does not exist; create it: caractrl create secret users --type basicAuth --from-file users=FILE"
	is(api.ReasonNoPublicIngress, host+" is Public, but no node serves public hosts; start a cara-agent with --public-http :80 --public-https :443", missing)
	conn := c.node(t, "n1")
	connectAgentAt(t, conn, "internal only", "192.0.2.1:8081", api.CapabilityIngress)
	eventually(t, "n1 is Ready", func() bool {
		n, _ := state.Get[*carav1.Node](c.db.Cache, "n1")
		return n.GetStatus().GetState() == api.NodeReady
	})
	is(api.ReasonNoPublicIngress, "no node serves public hosts")
	connectAgentAt(t, conn, "public", "192.0.2.1:8081", api.CapabilityIngress, api.CapabilityPublicIngress)
	is(api.ReasonPasswordsUnusable, missing)
	c.secret(t, "users", api.SecretOpaque, map[string]string{api.BasicAuthUsers: "ann:nonsense"})
	is(api.ReasonPasswordsUnusable, "Secret users has the type Opaque and must have the type basicAuth")
	if err := c.db.Transact(t.Context(), func(t *state.Tx) error { // as an older server stored it
		s, _ := state.Read[*carav1.Secret](t, "users")
		s = proto.CloneOf(s)
		s.Type = api.SecretBasicAuth
		t.Put(s)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	is(api.ReasonPasswordsUnusable, "cannot be used for passwords: line 1 has no bcrypt hash; make one with htpasswd -nB NAME; then set the Secret again")
	c.secret(t, "users", api.SecretBasicAuth, map[string]string{api.BasicAuthUsers: "ann:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC"})
	is("")
	connectAgentAt(t, conn, "internal again", "192.0.2.1:8081", api.CapabilityIngress)
	is(api.ReasonNoPublicIngress, "no node serves public hosts")
	var events []string
	said, err := carav1.NewEventServiceClient(c.admin(t)).ListEvents(t.Context(), &carav1.ListEventsRequest{Kind: api.KindProject, Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range said.GetItems() {
		if strings.HasPrefix(e.GetReason(), "Ingress") || e.GetReason() == api.ReasonNoPublicIngress {
			events = append(events, e.GetReason())
		}
	}
	if got := strings.Join(events, " "); !strings.Contains(got, api.ReasonNoPublicIngress) || !strings.Contains(got, api.ReasonIngressServed) {
		t.Errorf("events %q", got)
	}
}
