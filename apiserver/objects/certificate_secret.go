package objects

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// KeepCertificates keeps the certificates in the status of projects as the Secrets and the clock say, until ctx ends.
func (s Certificates) KeepCertificates(ctx context.Context) error {
	ctx = identity.WithActor(ctx, identity.Actor{Name: api.PrefixSystem + api.RoleServer, Role: api.RoleServer})
	if err := s.DB.Cache.Filled(ctx); err != nil {
		return nil // the server ends
	}
	ticker := time.NewTicker(rules.LookEvery)
	defer ticker.Stop()
	s.DB.Cache.Track(ctx, ticker.C, func() {
		s.refreshCertificates(ctx, func(*carav1.Project) bool { return true }) // a killed server may have missed some, too
	}, func(txs []state.Transaction) {
		for _, tx := range txs {
			if changed := rules.ChangedSecrets(tx); len(changed) > 0 {
				s.refreshCertificates(ctx, func(p *carav1.Project) bool { return rules.UsesTLS(p, changed) })
			}
			s.tellWildcards(ctx, tx)
		}
	}, func() { s.RefreshOutdated(ctx) })
	return nil
}

// RefreshOutdated updates the projects about whose certificates time has changed what is true.
func (s Certificates) RefreshOutdated(ctx context.Context) {
	now := s.DB.Now()
	s.refreshCertificates(ctx, func(p *carav1.Project) bool { return rules.Outdated(p, now) })
}

// refreshCertificates sets the certificates of those projects with certificates that match. An error concerns one project: the
// next change or look repairs it.
func (s Certificates) refreshCertificates(ctx context.Context, match func(*carav1.Project) bool) {
	public := func(p *carav1.Project) bool {
		return slices.ContainsFunc(p.GetSpec().GetIngress(), api.Public) && match(p)
	}
	s.eachProject(ctx, public, func(t *state.Tx, p, next *carav1.Project) {
		if reason := rules.CertificateTrouble(p.GetStatus(), next.GetStatus()); reason != "" {
			message := api.FindCondition(next.GetStatus().GetConditions(), api.CondCertificateReady).GetMessage()
			rules.RecordEvent(t, rules.RefTo(p), api.EventWarning, reason, message)
		}
	})
}

// eachProject sets the certificates of the projects that match, each in a transaction of its own, in which note can record an event.
func (s Certificates) eachProject(ctx context.Context, match func(*carav1.Project) bool, note func(t *state.Tx, before, after *carav1.Project)) {
	for _, seen := range state.List[*carav1.Project](s.DB.Cache, "") {
		if ctx.Err() != nil || !match(seen) {
			continue
		}
		name := seen.GetMetadata().GetName()
		err := s.DB.Transact(ctx, func(t *state.Tx) error {
			p, ok := state.Read[*carav1.Project](t, name)
			if !ok || !match(p) {
				return nil
			}
			next := proto.CloneOf(p)
			rules.SetCertificates(t, next)
			if !proto.Equal(p, next) {
				t.Put(next)
			}
			note(t, p, next)
			return nil
		})
		if err != nil && ctx.Err() == nil {
			s.DB.Logger.Warn("certificates of a project not updated", "project", name, "error", err)
		}
	}
}
