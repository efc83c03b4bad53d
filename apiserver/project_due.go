package apiserver

import (
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// stillDue holds a loop's deletion against what may have happened since it was decided: a manifest that came back or
// that another source has now, a source that was suspended, a person who overrode git, an expiry that was moved. What it
// reads must hold at the commit. The loop is told ABORTED and decides anew.
func stillDue(t *state.Tx, p *carav1.Project, reason string) error {
	switch reason {
	case api.ReasonPruned, api.ReasonSourceDeleted:
		return stillUnwanted(t, p, reason)
	case api.ReasonExpired:
		if at := p.GetStatus().GetExpireAt(); at == nil || at.AsTime().After(t.Now) {
			return notDue(p, "its expiry was moved")
		}
	}
	return nil
}

// stillUnwanted says whether git wants a project no more. It fails where a source that is there to stay declares it.
func stillUnwanted(t *state.Tx, p *carav1.Project, reason string) error {
	name := p.GetMetadata().GetName()
	for _, c := range claimsOn(t, name) {
		src, ok := state.Read[*carav1.Source](t, c.GetSpec().GetSource())
		at := c.GetSpec().GetProject().GetSpec().GetExpireAt()
		if at != nil && !at.AsTime().After(t.Now) && c.GetSpec().GetSource() != sourceOf(p) {
			continue // it has expired there: nobody would take it over
		}
		if c.GetSpec().GetSource() != sourceOf(p) && declaredBySource(t, c.GetSpec().GetSource(), c.GetSpec().GetProject()) != nil {
			continue // that source may not have it
		}
		if c.GetSpec().GetPresent() && ok && src.GetMetadata().GetDeletionTimestamp() == nil && src.GetMetadata().GetUid() == c.GetSpec().GetSourceUid() {
			return notDue(p, "source %q declares it in %s", c.GetSpec().GetSource(), c.GetSpec().GetFile())
		}
	}
	if reason != api.ReasonPruned {
		return nil
	}
	if src, ok := state.Read[*carav1.Source](t, sourceOf(p)); ok && src.GetSpec().GetSuspend() {
		return notDue(p, "its source %q is suspended", src.GetMetadata().GetName())
	}
	o, ok := state.Read[*carav1.Override](t, name)
	if ok && o.GetScope() != api.OverrideExpiry && outlived(t, o) == "" {
		return notDue(p, "%s", overrideText(o))
	}
	return nil
}

func notDue(p *carav1.Project, why string, args ...any) error {
	args = append([]any{p.GetMetadata().GetName()}, args...)
	return api.Conflict("project %q is not deleted: "+why, args...)
}

// guardClaims is the guard of all claims.
const guardClaims = "claims"

// claimsOn returns what sources say of a project. That the others say nothing is a condition as well: a manifest that comes
// at the same moment makes the transaction run again.
func claimsOn(t *state.Tx, project string) []*carav1.Claim {
	t.Object(state.KindGuard, guardClaims)
	var claims []*carav1.Claim
	for _, name := range t.Seen.ClaimsOn(project) {
		source, _, _ := strings.Cut(name, "/")
		_, known := state.Get[*carav1.Source](t.Seen, source)
		if c, ok := state.Read[*carav1.Claim](t, name); ok && known {
			claims = append(claims, c)
		}
	}
	return claims
}
