package objects

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// expiresSoon is how long before its end a certificate of a Secret has a warning.
	expiresSoon = 14 * 24 * time.Hour
	// lookEvery is how often the ends of certificates are compared with the clock.
	lookEvery = 10 * time.Minute
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

// KeepCertificates keeps the certificates in the status of projects as the Secrets and the clock say, until ctx ends.
func (s *Service) KeepCertificates(ctx context.Context) error {
	ctx = identity.WithActor(ctx, identity.Actor{Name: api.PrefixSystem + api.RoleServer, Role: api.RoleServer})
	if err := s.DB.Cache.Filled(ctx); err != nil {
		return nil // the server ends
	}
	at := s.DB.Cache.Revision()
	s.refreshCertificates(ctx, func(*carav1.Project) bool { return true }) // a killed server may have missed some
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		txs, wake, ok := s.DB.Cache.After(at)
		if !ok { // too many changes meanwhile
			at = s.DB.Cache.Revision()
			s.refreshCertificates(ctx, func(*carav1.Project) bool { return true })
			continue
		}
		for _, tx := range txs {
			at = tx.Rev
			if changed := changedSecrets(tx); len(changed) > 0 {
				s.refreshCertificates(ctx, func(p *carav1.Project) bool { return usesTLS(p, changed) })
			}
			s.tellWildcards(ctx, tx)
		}
		if len(txs) > 0 {
			continue
		}
		select {
		case <-wake:
		case <-ticker.C:
			s.RefreshOutdated(ctx)
		case <-ctx.Done():
			return nil
		case <-s.DB.Draining:
			return nil
		}
	}
}

// RefreshOutdated updates the projects about whose certificates time has changed what is true.
func (s *Service) RefreshOutdated(ctx context.Context) {
	now := s.DB.Now()
	s.refreshCertificates(ctx, func(p *carav1.Project) bool { return outdated(p, now) })
}

// changedSecrets returns the Secrets that a transaction has changed.
func changedSecrets(tx state.Transaction) (names []string) {
	for i := range tx.Changes {
		if tx.Changes[i].Kind == api.KindSecret {
			names = append(names, tx.Changes[i].Name)
		}
	}
	return names
}

func usesTLS(p *carav1.Project, secrets []string) bool {
	return slices.ContainsFunc(p.GetSpec().GetIngress(), func(in *carav1.Ingress) bool {
		return slices.Contains(secrets, in.GetTls().GetSecretRef())
	})
}

// outdated reports whether time has changed what the status says about a certificate.
func outdated(p *carav1.Project, now time.Time) bool {
	return slices.ContainsFunc(p.GetStatus().GetCertificates(), func(c *carav1.HostCertificate) bool {
		if c.GetNotAfter() == nil {
			return false
		}
		end := c.GetNotAfter().AsTime()
		return !now.Before(end) || c.GetSecretRef() != "" && c.GetWarning() == "" && now.After(end.Add(-expiresSoon))
	})
}

// refreshCertificates sets the certificates of those projects with certificates that match. An error concerns one project: the
// next change or look repairs it.
func (s *Service) refreshCertificates(ctx context.Context, match func(*carav1.Project) bool) {
	projects, _ := state.List[*carav1.Project](s.DB.Cache, "", "")
	for _, p := range projects {
		if ctx.Err() != nil || !slices.ContainsFunc(p.GetSpec().GetIngress(), api.Public) || !match(p) {
			continue
		}
		if err := s.refreshCertificate(ctx, p.GetMetadata().GetName()); err != nil && ctx.Err() == nil {
			s.DB.Logger.Warn("certificates of a project not updated", "project", p.GetMetadata().GetName(), "error", err)
		}
	}
}

func (s *Service) refreshCertificate(ctx context.Context, name string) error {
	return s.DB.Transact(ctx, func(t *state.Tx) error {
		p, ok := state.Read[*carav1.Project](t, name)
		if !ok {
			return nil
		}
		next := proto.CloneOf(p)
		setCertificates(t, next)
		if proto.Equal(p, next) {
			return nil
		}
		t.Put(next)
		if reason := certificateTrouble(p.GetStatus(), next.GetStatus()); reason != "" {
			message := api.FindCondition(next.GetStatus().GetConditions(), api.CondCertificateReady).GetMessage()
			RecordEvent(t, RefTo(p), api.EventWarning, reason, message)
		}
		return nil
	})
}

// certificateTrouble returns the reason of the event for a certificate that cannot be used any longer, or that ends soon. It is
// empty if that was so before.
func certificateTrouble(before, now *carav1.ProjectStatus) api.Reason {
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
