package objects

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// tellWildcards updates the projects whose hosts are under a wildcard that a transaction has changed.
func (s Certificates) tellWildcards(ctx context.Context, tx state.Transaction) {
	for i := range tx.Changes {
		ch := &tx.Changes[i]
		if ch.Kind != state.KindCertificateOrder || !strings.HasPrefix(ch.Name, "*.") {
			continue
		}
		old, now := state.As[*carav1.CertificateOrder](ch.Old), state.As[*carav1.CertificateOrder](ch.New)
		projects, _ := state.List[*carav1.Project](s.DB.Cache, "", "")
		for _, p := range projects {
			if ctx.Err() != nil || !s.under(p, ch.Name) {
				continue
			}
			if err := s.tellWildcard(ctx, p.GetMetadata().GetName(), old, now); err != nil && ctx.Err() == nil {
				s.DB.Logger.Warn("certificates of a project not updated", "project", p.GetMetadata().GetName(), "error", err)
			}
		}
	}
}

// under reports whether a project has a host for which a wildcard stands, and wants a certificate from the authority for it.
func (s Certificates) under(p *carav1.Project, wildcard string) bool {
	return slices.ContainsFunc(p.GetSpec().GetIngress(), func(in *carav1.Ingress) bool {
		return api.AutoTLS(in) && api.WildcardOf(s.DB.Hosts.Template.Host(in.GetHost())) == wildcard
	})
}

// tellWildcard updates one project, and records an event if an attempt has ended.
func (s Certificates) tellWildcard(ctx context.Context, name string, old, now *carav1.CertificateOrder) error {
	return s.DB.Transact(ctx, func(t *state.Tx) error {
		p, ok := state.Read[*carav1.Project](t, name)
		if !ok || !s.under(p, rules.OrderName(old, now)) {
			return nil
		}
		next := proto.CloneOf(p)
		rules.SetCertificates(t, next)
		if !proto.Equal(p, next) {
			t.Put(next)
		}
		if now != nil {
			issued := !proto.Equal(old.GetNotAfter(), now.GetNotAfter()) || !bytes.Equal(old.GetSerial(), now.GetSerial()) && len(old.GetSerial()) > 0
			if typ, reason, message := certificateEvent(old, now, issued); reason != "" {
				rules.RecordEvent(t, rules.RefTo(p), typ, reason, message)
			}
		}
		return nil
	})
}
