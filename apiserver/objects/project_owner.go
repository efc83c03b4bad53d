package objects

import (
	"context"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// AdoptProject gives a project without an owner to a source that claims it. If two sources try, the first commit wins. The
// project does not change until the source's next reconciliation.
func (s Projects) AdoptProject(ctx context.Context, req *carav1.AdoptProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		if api.GoingAway(p) {
			return rules.ErrTerminating(p)
		}
		have := p.GetMetadata().GetOwner()
		if strings.HasPrefix(have, api.PrefixSource) && have != api.PrefixSource+req.GetSource() {
			return api.Owned("project %q belongs to %s: release it first (caractrl release %s)",
				req.GetName(), rules.Whence(have, p.GetMetadata().GetOrigin()), req.GetName())
		}
		claim, err := rules.Claimant(t, req)
		if err != nil {
			return err
		}
		owner := api.PrefixSource + claim.GetSource()
		if have == owner {
			return nil
		}
		if err := rules.DeclaredBySource(t, claim.GetSource(), claim.GetProject()); err != nil {
			return err
		}
		p.Metadata.Owner, p.Metadata.Origin = owner, rules.OriginOf(claim)
		rules.OwnVolumes(t, p)
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonAdopted, "given to "+rules.Whence(owner, p.GetMetadata().GetOrigin())+" by "+t.Actor.Name+", before it belonged to "+api.OrNobody(have))
		return nil
	})
}

// ReleaseProject takes a project from its source and gives it to the caller. Git no longer manages it, so its override is
// removed, and an extension becomes part of the project's own expiry.
func (s Projects) ReleaseProject(ctx context.Context, req *carav1.ReleaseProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		have := p.GetMetadata().GetOwner()
		switch {
		case api.GoingAway(p):
			return rules.ErrTerminating(p)
		case rules.SourceOf(p) == "":
			return api.BadState("project %q belongs to %s: only what a source owns is released",
				req.GetName(), api.OrNobody(have))
		}
		if err := rules.MayDeclare(t, p); err != nil {
			return err
		}
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonReleased, "released from "+rules.Whence(have, p.GetMetadata().GetOrigin())+" by "+t.Actor.Name+", who owns it now")
		p.Metadata.Owner, p.Metadata.Origin = t.Actor.Name, nil
		rules.OwnVolumes(t, p)
		return rules.SettleOverride(t, p, "the project was released")
	})
}
