package apiserver

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testca"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

const hash = "$2y$05$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"

// public is a project with a public host that has the certificate of the Secret site and the passwords of the Secret people.
func public(name, host string) *carav1.Project {
	p := web(name)
	p.Spec.Ingress = []*carav1.Ingress{{
		Name: "web", Host: host, Target: &carav1.IngressTarget{Service: "web", Port: 80},
		Access: &carav1.IngressAccess{Scope: api.ScopePublic, BasicAuth: &carav1.IngressBasicAuth{SecretRef: "people"}},
		Tls:    &carav1.IngressTLS{SecretRef: "site"},
	}}
	return p
}

// site stores the Secret site with a new certificate for names.
func (c *cluster) site(t *testing.T, ca *testca.Authority, end time.Time, names ...string) (chain string) {
	t.Helper()
	crt, key, err := ca.Site(end, names...)
	if err != nil {
		t.Fatal(err)
	}
	c.secret(t, "site", api.SecretTLS, map[string]string{"tls.crt": string(crt), "tls.key": string(key)})
	return string(crt)
}

// credentials returns the next change of credentials for which a condition holds.
func (a *fakeAgent) credentials(holds func(*carav1.Credentials) bool) *carav1.Credentials {
	a.t.Helper()
	for {
		if m := a.next().GetCredentials(); m != nil && holds(m) {
			return m
		}
	}
}

// TestCredentialsOfAgents: an agent gets what it can serve, and nothing else.
func TestCredentialsOfAgents(t *testing.T) {
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, nil)
	first := c.site(t, ca, time.Now().Add(time.Hour), "a.test", "b.test", "bank.test")
	c.secret(t, "people", api.SecretBasicAuth, map[string]string{"users": "ann:" + hash})
	c.create(t, public("shop", "a.test"))
	front := connectAgentAt(t, c.node(t, "n1"), "a", "192.0.2.1:8081", api.CapabilityIngress, api.CapabilityPublicIngress)
	inner := connectAgentAt(t, c.node(t, "n2"), "b", "192.0.2.2:8081", api.CapabilityIngress)
	old := connectAgentAt(t, c.node(t, "n3"), "c", "192.0.2.3:8081")

	all := front.credentials(func(m *carav1.Credentials) bool { return m.GetFull() })
	if len(all.GetCertificates()) != 1 || !slices.Equal(all.GetCertificates()[0].GetNames(), []string{"a.test"}) || string(all.GetCertificates()[0].GetChain()) != first {
		t.Errorf("the certificate is for %v, want only the host that the project has claimed", all.GetCertificates()[0].GetNames())
	}
	if len(all.GetPasswordLists()) != 1 || all.GetPasswordLists()[0].GetUsers()["ann"] != hash {
		t.Errorf("%d password lists", len(all.GetPasswordLists()))
	}
	all = inner.credentials(func(m *carav1.Credentials) bool { return m.GetFull() })
	if len(all.GetCertificates()) != 0 || len(all.GetPasswordLists()) != 1 {
		t.Errorf("an agent without public addresses got %d certificates and %d lists", len(all.GetCertificates()), len(all.GetPasswordLists()))
	}
	for {
		m := old.next()
		if m.GetCredentials() != nil {
			t.Fatal("an agent of an older version got credentials")
		}
		if r := m.GetRoutes(); r.GetFull() {
			if len(r.GetUpserts())+len(r.GetHosts()) > 0 || !slices.Contains(r.GetRemovedHosts(), "a.test") {
				t.Errorf("an agent of an older version would serve the host: %v", r)
			}
			break
		}
	}

	c.create(t, public("second", "b.test"))
	front.credentials(func(m *carav1.Credentials) bool {
		return len(m.GetCertificates()) == 1 && slices.Equal(m.GetCertificates()[0].GetNames(), []string{"a.test", "b.test"})
	})
	next := c.site(t, ca, time.Now().Add(time.Hour), "a.test")
	front.credentials(func(m *carav1.Credentials) bool {
		return len(m.GetCertificates()) == 1 && string(m.GetCertificates()[0].GetChain()) == next && len(m.GetCertificates()[0].GetNames()) == 1
	})
	c.secret(t, "people", api.SecretBasicAuth, map[string]string{"users": "bob:" + hash})
	for _, a := range []*fakeAgent{front, inner} {
		a.credentials(func(m *carav1.Credentials) bool {
			return len(m.GetPasswordLists()) == 1 && m.GetPasswordLists()[0].GetUsers()["bob"] == hash && len(m.GetCertificates()) == 0
		})
	}
	if _, err := carav1.NewSecretServiceClient(c.admin(t)).DeleteSecret(t.Context(), &carav1.DeleteRequest{Name: "site"}); err != nil {
		t.Fatal(err)
	}
	front.credentials(func(m *carav1.Credentials) bool {
		return slices.Equal(m.GetRemovedCertificates(), []string{"secret/site"})
	})
}

// TestCredentialsThatASourceTakes: agents lose what a source uses itself, and get it again when it does not. The server refuses such a
// source, so this is about one that an older server stored.
func TestCredentialsThatASourceTakes(t *testing.T) {
	c := newCluster(t, nil)
	c.secret(t, "people", api.SecretBasicAuth, map[string]string{"users": "ann:" + hash})
	p := public("shop", "a.test")
	p.Spec.Ingress[0].Tls = nil
	c.create(t, p)
	agent := connectAgentAt(t, c.node(t, "n1"), "a", "192.0.2.1:8081", api.CapabilityIngress, api.CapabilityPublicIngress)
	agent.credentials(func(m *carav1.Credentials) bool { return m.GetFull() && len(m.GetPasswordLists()) == 1 })
	use := func(secret string) {
		t.Helper()
		if err := c.db.Transact(t.Context(), func(tx *state.Tx) error {
			tx.Put(&carav1.Source{Metadata: &carav1.ObjectMeta{Name: "platform"}, Spec: &carav1.SourceSpec{Git: &carav1.GitSource{Url: "https://git.test/a", SecretRef: secret}}})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	use("people")
	agent.credentials(func(m *carav1.Credentials) bool { return slices.Equal(m.GetRemovedPasswordLists(), []string{"people"}) })
	use("")
	agent.credentials(func(m *carav1.Credentials) bool {
		return len(m.GetPasswordLists()) == 1 && m.GetPasswordLists()[0].GetUsers()["ann"] == hash
	})
}

// TestCertificateReady: the condition follows the Secret, and quotes nothing of the key.
func TestCertificateReady(t *testing.T) {
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	at := newClock()
	c := newCluster(t, func(cfg *Config) { cfg.Now = at.now })
	c.create(t, public("shop", "a.test"))
	projects := carav1.NewProjectServiceClient(c.admin(t))
	becomes := func(status, text string) *carav1.Project {
		t.Helper()
		var p *carav1.Project
		eventually(t, status+" "+text, func() bool {
			if p, err = projects.GetProject(t.Context(), &carav1.GetRequest{Name: "shop"}); err != nil {
				t.Fatal(err)
			}
			cond := api.FindCondition(p.GetStatus().GetConditions(), api.CondCertificateReady)
			return cond.GetStatus() == status && strings.Contains(cond.GetMessage(), text)
		})
		return p
	}
	becomes(api.StatusFalse, "a.test: Secret site does not exist: create it with the type tls")
	c.secret(t, "site", "", map[string]string{"tls.crt": "x"})
	becomes(api.StatusFalse, "Secret site has the type Opaque: it must have the type tls")
	c.site(t, ca, at.now().Add(24*time.Hour*90), "other.test")
	becomes(api.StatusFalse, "the certificate of Secret site is for other.test and not for this host")
	end := at.now().Add(24 * time.Hour * 60)
	c.site(t, ca, end, "a.test", "*.b.test")
	p := becomes(api.StatusTrue, "a.test: valid until "+end.UTC().Format(time.RFC3339))
	if got := p.GetStatus().GetCertificates()[0]; !slices.Equal(got.GetNames(), []string{"a.test", "*.b.test"}) || got.GetIssuer() != "test" {
		t.Errorf("the status has %v", got)
	}
	look := func() {
		objects.Certificates{Service: c.objects}.RefreshOutdated(t.Context())
	}
	at.step(24 * time.Hour * 47)
	look()
	becomes(api.StatusTrue, "it ends soon: put a new certificate into Secret site")
	at.step(24 * time.Hour * 14)
	look()
	becomes(api.StatusFalse, "the certificate of Secret site expired at "+end.UTC().Format(time.RFC3339))
	events, err := carav1.NewEventServiceClient(c.admin(t)).ListEvents(t.Context(), &carav1.ListEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, e := range events.GetItems() {
		// That there is no node is not about certificates.
		if e.GetType() == api.EventWarning && e.GetObject().GetName() == "shop" && e.GetReason() != api.ReasonNoPublicIngress {
			reasons = append(reasons, e.GetReason())
		}
	}
	slices.Sort(reasons)
	if want := []string{api.ReasonCertificateExpiring, api.ReasonCertificateMissing}; !slices.Equal(reasons, want) {
		t.Errorf("events %v, want %v", reasons, want)
	}
	if strings.Contains(c.log.String(), "PRIVATE KEY") {
		t.Error("the log has a private key")
	}

	auto := public("auto", "auto.test")
	auto.Spec.Ingress[0].Tls, auto.Spec.Ingress[0].Access.BasicAuth = nil, nil
	c.create(t, auto)
	p, err = projects.GetProject(t.Context(), &carav1.GetRequest{Name: "auto"})
	cond := api.FindCondition(p.GetStatus().GetConditions(), api.CondCertificateReady)
	if err != nil || cond.GetStatus() != api.StatusFalse || !strings.Contains(cond.GetMessage(), "tls.secretRef") {
		t.Errorf("without a certificate authority: %v %v", cond, err)
	}
}

// TestSecretsOfPublicHostsNeedPermission: a source reaches only the Secrets of its spec.allow, also for certificates and
// passwords.
func TestSecretsOfPublicHostsNeedPermission(t *testing.T) {
	denials := api.SourceDenials("platform", &carav1.SourceAllow{Secrets: []string{"people"}}, public("shop", "a.test"), []string{"a.test"}, api.HostTemplate{})
	if len(denials) != 1 || !strings.Contains(denials[0], "site") {
		t.Errorf("denied: %v", denials)
	}
	c := newCluster(t, nil)
	bad := public("shop", "a.test")
	bad.Spec.Ingress[0].Access.Scope = api.ScopeInternal
	_, err := carav1.NewProjectServiceClient(c.admin(t)).CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: bad})
	testproblem.Want(t, err, codes.InvalidArgument, api.TitleInvalid)
}
