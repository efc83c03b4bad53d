package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// SetCertificates sets the certificates in the status of a project, and the condition about them, from the spec from the
// Secrets, and from what the server has done to obtain them. p is the transaction's own copy.
func SetCertificates(t *state.Tx, p *carav1.Project) {
	var all []*carav1.HostCertificate
	for _, in := range p.GetSpec().GetIngress() {
		host := t.Hosts.Template.Host(in.GetHost())
		known := slices.ContainsFunc(all, func(c *carav1.HostCertificate) bool { return c.GetHost() == host })
		switch {
		case known || !api.Public(in):
		case in.GetTls().GetSecretRef() != "":
			all = append(all, fromSecret(t, host, in.GetTls().GetSecretRef()))
		case api.AutoTLS(in):
			all = append(all, obtained(t, host))
		}
	}
	slices.SortFunc(all, func(a, b *carav1.HostCertificate) int { return cmp.Compare(a.GetHost(), b.GetHost()) })
	p.Status.Certificates = all
	if c := api.CertificateCondition(all); c != nil {
		SetCondition(t, p, c)
		return
	}
	p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), api.CondCertificateReady)
}

// obtained describes the certificate of a host that the server obtains.
func obtained(t *state.Tx, host string) *carav1.HostCertificate {
	out := &carav1.HostCertificate{Host: host}
	name, order := orderOf(t, host)
	problem := order.GetProblem()
	if next := order.GetNextTry(); problem != "" && next != nil {
		problem += "; next try at " + next.AsTime().UTC().Format(time.RFC3339)
	}
	switch {
	case order.GetNotAfter() != nil && t.Now.Before(order.GetNotAfter().AsTime()):
		out.Names, out.NotAfter, out.Issuer = []string{name}, order.GetNotAfter(), order.GetIssuer()
		out.Warning = warning(order, problem)
	case !t.Hosts.Obtained:
		out.Problem = "this server obtains no certificates: start it with --acme-email, or use a Secret of type tls with tls.secretRef, or set tls.mode: Off to serve the host over HTTP only"
	case problem != "":
		out.Problem = problem
	default:
		out.Problem = "waiting for the certificate authority"
	}
	return out
}

// warning returns what is wrong with a certificate that can be used. problem is why it could not be renewed, or empty.
func warning(order *carav1.CertificateOrder, problem string) string {
	var all []string
	if order.GetRecalled() {
		all = append(all, RecallText(order))
	}
	if problem != "" {
		all = append(all, "it could not be renewed: "+problem)
	}
	return strings.Join(all, "; ")
}

// RecallText says that the authority wants a certificate to be replaced.
func RecallText(order *carav1.CertificateOrder) string {
	said := "the authority wants this certificate to be replaced now; it has probably revoked it. The server orders a new one"
	if order.GetRecallUrl() != "" {
		said += "; the authority explains: " + order.GetRecallUrl()
	}
	return said
}

// TellCertificate updates the projects that claim a host, and records an event about its certificate for each of them.
func TellCertificate(t *state.Tx, host string, typ api.EventType, reason api.Reason, message string) {
	claim, _ := state.Read[*carav1.HostClaim](t, host)
	told := map[string]bool{}
	for _, c := range pathClaims(claim) {
		p, ok := state.Read[*carav1.Project](t, c.GetProject())
		if !ok || told[c.GetProject()] {
			continue
		}
		told[c.GetProject()] = true
		next := proto.CloneOf(p)
		SetCertificates(t, next)
		if !slices.ContainsFunc(next.GetStatus().GetCertificates(), func(h *carav1.HostCertificate) bool {
			return h.GetHost() == host && h.GetSecretRef() == ""
		}) {
			continue // it uses the host without this certificate
		}
		if !proto.Equal(p, next) {
			t.Put(next)
		}
		if reason != "" {
			RecordEvent(t, RefTo(p), typ, reason, message)
		}
	}
}

// The hosts under a wildcard share one certificate and one CertificateOrder, whose name is the wildcard. The projects of these
// hosts can be many, so each of them is updated in a transaction of its own, after that of the order.

// orderOf returns the name of the certificate that agents use for a host, and what was done to obtain it. If there is none, it
// returns those of the certificate that the host is to get.
func orderOf(t *state.Tx, host string) (string, *carav1.CertificateOrder) {
	own, _ := state.Read[*carav1.CertificateOrder](t, host)
	wildcard := api.WildcardOf(host)
	if wildcard == "" {
		return host, own
	}
	shared, _ := state.Read[*carav1.CertificateOrder](t, wildcard)
	valid := func(o *carav1.CertificateOrder) bool {
		return o.GetNotAfter() != nil && t.Now.Before(o.GetNotAfter().AsTime())
	}
	if !valid(own) && (valid(shared) || wildcard == t.Hosts.Wildcard) { // agents prefer an exact name
		return wildcard, shared
	}
	return host, own
}

const (
	// expiresSoon is how long before its end a certificate of a Secret has a warning.
	expiresSoon = 14 * 24 * time.Hour
	// LookEvery is how often the ends of certificates are compared with the clock.
	LookEvery = 10 * time.Minute
)

// fromSecret describes the certificate of a host that comes from a Secret. It quotes only the public part.
func fromSecret(t *state.Tx, host, name string) *carav1.HostCertificate {
	out := &carav1.HostCertificate{Host: host, SecretRef: name}
	secret, exists := state.Read[*carav1.Secret](t, name)
	switch source := SourceSecrets(t.Seen)[name]; {
	case source != "":
		out.Problem = fmt.Sprintf("Secret %s belongs to source %s, and no project may use it: name another one in tls.secretRef", name, source)
		return out
	case !exists:
		out.Problem = fmt.Sprintf("Secret %s does not exist: create it with the type %s", name, api.SecretTLS)
		return out
	case secret.GetType() != api.SecretTLS:
		out.Problem = fmt.Sprintf("Secret %s has the type %s: it must have the type %s", name, cmp.Or(secret.GetType(), api.SecretOpaque), api.SecretTLS)
		return out
	}
	chain, chainErr := SecretValue(t.Vault, secret, api.TLSCertificateKey)
	key, keyErr := SecretValue(t.Vault, secret, api.TLSPrivateKey)
	if chainErr != nil || keyErr != nil {
		out.Problem = fmt.Sprintf("Secret %s cannot be opened: set it again", name)
		return out
	}
	pair, err := api.ParseCertificate(chain, key)
	if err != nil {
		out.Problem = fmt.Sprintf("Secret %s cannot be used: %v", name, err)
		return out
	}
	api.DescribeCertificate(out, pair.Leaf, t.Now, expiresSoon)
	return out
}

// ChangedSecrets returns the Secrets that a transaction has changed.
func ChangedSecrets(tx state.Transaction) (names []string) {
	for i := range tx.Changes {
		if tx.Changes[i].Kind == api.KindSecret {
			names = append(names, tx.Changes[i].Name)
		}
	}
	return names
}

// UsesTLS reports whether a project takes a certificate from one of some Secrets.
func UsesTLS(p *carav1.Project, secrets []string) bool {
	return slices.ContainsFunc(p.GetSpec().GetIngress(), func(in *carav1.Ingress) bool {
		return slices.Contains(secrets, in.GetTls().GetSecretRef())
	})
}

// Outdated reports whether time has changed what the status says about a certificate.
func Outdated(p *carav1.Project, now time.Time) bool {
	return slices.ContainsFunc(p.GetStatus().GetCertificates(), func(c *carav1.HostCertificate) bool {
		if c.GetNotAfter() == nil {
			return false
		}
		end := c.GetNotAfter().AsTime()
		return !now.Before(end) || c.GetSecretRef() != "" && c.GetWarning() == "" && now.After(end.Add(-expiresSoon))
	})
}

// CertificateTrouble returns the reason of the event for a certificate that cannot be used any longer, or that ends soon. It is
// empty if that was so before.
func CertificateTrouble(before, now *carav1.ProjectStatus) api.Reason {
	for _, c := range now.GetCertificates() {
		i := slices.IndexFunc(before.GetCertificates(), func(old *carav1.HostCertificate) bool { return old.GetHost() == c.GetHost() })
		var old *carav1.HostCertificate
		if i >= 0 {
			old = before.GetCertificates()[i]
		}
		switch {
		case c.GetProblem() != "" && old.GetProblem() == "":
			return api.ReasonCertificateMissing
		case c.GetWarning() != "" && old.GetWarning() == "":
			return api.ReasonCertificateExpiring
		}
	}
	return ""
}
