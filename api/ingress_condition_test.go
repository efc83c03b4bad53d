package api_test

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestIngressCondition(t *testing.T) {
	node := func(name, state string, public bool) *carav1.Node {
		return &carav1.Node{Metadata: &carav1.ObjectMeta{Name: name}, Status: &carav1.NodeStatus{State: state, PublicIngress: public}}
	}
	public := &carav1.Ingress{Host: "shop", Access: &carav1.IngressAccess{Scope: api.ScopePublic}}
	locked := &carav1.Ingress{Host: "a.example", Path: "/x", Access: &carav1.IngressAccess{BasicAuth: &carav1.IngressBasicAuth{SecretRef: "users"}}}
	other := &carav1.Ingress{Host: "a.example", Path: "/y", Access: &carav1.IngressAccess{BasicAuth: &carav1.IngressBasicAuth{SecretRef: "others"}}}
	for name, tt := range map[string]struct {
		rules        []*carav1.Ingress
		nodes        []*carav1.Node
		bad          string // Secret
		reason, text string
	}{
		"no rule":                  {nil, nil, "", "", ""},
		"internal, no node":        {[]*carav1.Ingress{{Host: "a.example"}}, nil, "", "", ""},
		"public, no node":          {[]*carav1.Ingress{public}, nil, "", api.ReasonNoPublicIngress, "shop.dev.example is Public, but no node serves public hosts"},
		"public, internal node":    {[]*carav1.Ingress{public}, []*carav1.Node{node("a", api.NodeReady, false)}, "", api.ReasonNoPublicIngress, "no node"},
		"public, node is away":     {[]*carav1.Ingress{public}, []*carav1.Node{node("a", api.NodeNotReady, true)}, "", api.ReasonNoPublicIngress, "are not connected: a; start cara-agent there"},
		"public, one node is away": {[]*carav1.Ingress{public}, []*carav1.Node{node("a", api.NodeNotReady, true), node("b", api.NodeDraining, true)}, "", "", ""},
		"password":                 {[]*carav1.Ingress{locked}, nil, "", "", ""},
		"bad password":             {[]*carav1.Ingress{locked, other}, nil, "users", api.ReasonPasswordsUnusable, "a.example/x answers 503, because Secret users is bad"},
		"both":                     {[]*carav1.Ingress{locked, public}, nil, "users", api.ReasonNoPublicIngress, "Secret users is bad"},
	} {
		p := &carav1.Project{Spec: &carav1.ProjectSpec{Ingress: tt.rules}}
		got := api.IngressCondition(p, api.HostTemplate{Environment: "dev", BaseDomain: "example"}, tt.nodes, func(secret string) string {
			if secret == tt.bad {
				return "is bad"
			}
			return ""
		})
		if got.GetReason() != tt.reason || !strings.Contains(got.GetMessage(), tt.text) || (got == nil) != (tt.reason == "") {
			t.Errorf("%s: %v", name, got)
		}
		if got == nil {
			continue
		}
		p.Status = &carav1.ProjectStatus{Conditions: []*carav1.Condition{got}}
		if said := api.PublicNotServed(p); said != (tt.reason == api.ReasonNoPublicIngress) {
			t.Errorf("%s: public hosts not served: %v", name, said)
		}
		if api.PasswordsUnusable(p, "a.example", locked) != (tt.bad == "users") || api.PasswordsUnusable(p, "a.example", other) || api.PasswordsUnusable(p, "shop.dev.example", public) {
			t.Errorf("%s: wrong rules: %s", name, got.GetMessage())
		}
	}
}
