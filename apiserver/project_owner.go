package apiserver

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// AdoptProject gives a project that somebody made by hand to a source that claims it. The compare-and-swap is the
// transaction's: between two sources the first one wins.
func (s projectService) AdoptProject(ctx context.Context, req *carav1.AdoptProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *tx, p *carav1.Project) error {
		if !t.actor.mayName(req.GetName()) {
			return errPrefix(t.actor, req.GetName())
		}
		source, err := t.claimant(req)
		if err != nil {
			return err
		}
		owner := sourcePrefix + source
		switch have := p.GetMetadata().GetOwner(); {
		case have == owner:
			return nil
		case strings.HasPrefix(have, sourcePrefix):
			return api.Errorf(codes.FailedPrecondition, api.TitleOwned, "project %q belongs to %s: release it first (caractrl release %s)",
				req.GetName(), whence(have, p.GetMetadata().GetOrigin()), req.GetName())
		default:
			t.event(refTo(p), eventNormal, "Adopted", "given to "+owner+" by "+t.actor.Name+", before it belonged to "+orNobody(have))
		}
		p.Metadata.Owner = owner
		return nil
	})
}

// claimant is the source that is to own a project: the one that was named, or the only one that claims it.
func (t *tx) claimant(req *carav1.AdoptProjectRequest) (string, error) {
	var claims []string
	for _, c := range t.server.cache.claimsOn(req.GetName()) {
		if c.GetSpec().GetPresent() && (req.GetSource() == "" || c.GetSpec().GetSource() == req.GetSource()) {
			claims = append(claims, c.GetSpec().GetSource())
		}
	}
	switch {
	case len(claims) == 1:
		_, _ = read[*carav1.Claim](t, claims[0]+"/"+req.GetName()) // what was decided on it must still hold at the commit
		return claims[0], nil
	case req.GetSource() != "":
		return "", api.Errorf(codes.FailedPrecondition, api.TitleConflict, "source %q does not declare project %q", req.GetSource(), req.GetName())
	case len(claims) == 0:
		return "", api.Errorf(codes.FailedPrecondition, api.TitleConflict, "no source declares project %q: there is nobody to adopt it", req.GetName())
	}
	return "", api.Errorf(codes.FailedPrecondition, api.TitleConflict, "project %q is declared by %s: say which one adopts it (--source)",
		req.GetName(), strings.Join(claims, " and "))
}

// ReleaseProject takes a project from its source and gives it to the caller.
func (s projectService) ReleaseProject(ctx context.Context, req *carav1.ReleaseProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *tx, p *carav1.Project) error {
		if !t.actor.mayName(req.GetName()) {
			return errPrefix(t.actor, req.GetName())
		}
		have := p.GetMetadata().GetOwner()
		if sourceOf(p) == "" {
			return api.Errorf(codes.FailedPrecondition, api.TitleConflict, "project %q belongs to %s: only what a source owns is released",
				req.GetName(), orNobody(have))
		}
		t.event(refTo(p), eventNormal, "Released", "released from "+have+" by "+t.actor.Name+", who owns it now")
		p.Metadata.Owner, p.Metadata.Origin = t.actor.Name, nil
		if _, ok := read[*carav1.Override](t, req.GetName()); ok { // git has no say over it any more, so there is nothing to suspend
			t.remove(api.KindOverride, req.GetName())
			p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), api.CondOverridden)
		}
		return nil
	})
}
