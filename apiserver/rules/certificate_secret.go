package rules

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
