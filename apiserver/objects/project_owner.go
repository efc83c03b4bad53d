package objects

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// AdoptProject gives a project without an owner to a source that claims it. If two sources try, the first commit wins. The
// project does not change until the source's next reconciliation.
func (s Projects) AdoptProject(ctx context.Context, req *carav1.AdoptProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		if api.GoingAway(p) {
			return errTerminating(p)
		}
		have := p.GetMetadata().GetOwner()
		if strings.HasPrefix(have, api.PrefixSource) && have != api.PrefixSource+req.GetSource() {
			return api.Owned("project %q belongs to %s: release it first (caractrl release %s)",
				req.GetName(), whence(have, p.GetMetadata().GetOrigin()), req.GetName())
		}
		claim, err := claimant(t, req)
		if err != nil {
			return err
		}
		owner := api.PrefixSource + claim.GetSource()
		if have == owner {
			return nil
		}
		if err := declaredBySource(t, claim.GetSource(), claim.GetProject()); err != nil {
			return err
		}
		p.Metadata.Owner, p.Metadata.Origin = owner, originOf(claim)
		ownVolumes(t, p)
		RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonAdopted, "given to "+whence(owner, p.GetMetadata().GetOrigin())+" by "+t.Actor.Name+", before it belonged to "+api.OrNobody(have))
		return nil
	})
}

// claimant returns the claim of the source that will own a project: the named source, or the only one. All claims on the
// project are conditions of the commit.
func claimant(t *state.Tx, req *carav1.AdoptProjectRequest) (*carav1.ClaimSpec, error) {
	refuse := func(format string, args ...any) (*carav1.ClaimSpec, error) {
		return nil, api.BadState(format, args...)
	}
	var claims []*carav1.ClaimSpec
	var names []string
	for _, c := range claimsOn(t, req.GetName()) {
		c := c.GetSpec()
		src, ok := state.Read[*carav1.Source](t, c.GetSource())
		stays := ok && src.GetMetadata().GetDeletionTimestamp() == nil && src.GetMetadata().GetUid() == c.GetSourceUid()
		if c.GetPresent() && stays && (req.GetSource() == "" || c.GetSource() == req.GetSource()) {
			claims, names = append(claims, c), append(names, c.GetSource())
		}
	}
	switch {
	case len(claims) == 1:
		return claims[0], nil
	case req.GetSource() != "":
		return refuse("source %q does not declare project %q: declare it there first", req.GetSource(), req.GetName())
	case len(claims) == 0:
		return refuse("no source declares project %q: there is nobody to adopt it", req.GetName())
	}
	return refuse("project %q is declared by %s: say which one adopts it (--source)", req.GetName(), strings.Join(names, " and "))
}

// originOf returns the origin of a claim.
func originOf(c *carav1.ClaimSpec) *carav1.Origin {
	return &carav1.Origin{
		Source: c.GetSource(), File: c.GetFile(), Line: c.GetLine(), Revision: c.GetRevision(),
		Author: c.GetAuthor(), Subject: c.GetSubject(), CommitTime: c.GetCommitTime(),
	}
}

// ReleaseProject takes a project from its source and gives it to the caller. Git no longer manages it, so its override is
// removed, and an extension becomes part of the project's own expiry.
func (s Projects) ReleaseProject(ctx context.Context, req *carav1.ReleaseProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		have := p.GetMetadata().GetOwner()
		switch {
		case api.GoingAway(p):
			return errTerminating(p)
		case sourceOf(p) == "":
			return api.BadState("project %q belongs to %s: only what a source owns is released",
				req.GetName(), api.OrNobody(have))
		}
		if err := mayDeclare(t, p); err != nil {
			return err
		}
		RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonReleased, "released from "+whence(have, p.GetMetadata().GetOrigin())+" by "+t.Actor.Name+", who owns it now")
		p.Metadata.Owner, p.Metadata.Origin = t.Actor.Name, nil
		ownVolumes(t, p)
		return settleOverride(t, p, "the project was released")
	})
}

// settleOverride ends the override of a project that no source owns any more.
func settleOverride(t *state.Tx, p *carav1.Project, why string) error {
	o, ok := state.Read[*carav1.Override](t, p.GetMetadata().GetName())
	if !ok {
		return nil
	}
	expireAt := expiryOf(t, p)
	endOverride(t, o, why)
	p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), api.CondOverridden)
	if proto.Equal(expireAt, p.GetSpec().GetExpireAt()) {
		return nil
	}
	old, spec := proto.CloneOf(p), proto.CloneOf(p.GetSpec())
	spec.ExpireAt = expireAt
	if err := changeSpec(t, old, p, spec, "it keeps the expiry that "+o.GetActor()+" extended it to"); err != nil {
		return err
	}
	keepRevision(t, p, o.GetReason())
	return nil
}

// sourceOf returns the source that owns a project, or "".
func sourceOf(p *carav1.Project) string {
	name, _ := api.SourceOf(p.GetMetadata().GetOwner())
	return name
}

// whence formats where a project comes from: `source/platform, deploy/web.yaml at 1a2b3c4`.
func whence(owner string, origin *carav1.Origin) string {
	file, rev := origin.GetFile(), origin.GetRevision()
	if len(rev) > 7 && !strings.Contains(rev, ":") {
		rev = rev[:7]
	}
	switch {
	case file == "":
		return owner
	case rev == "":
		return owner + ", " + file
	default:
		return fmt.Sprintf("%s, %s at %s", owner, file, rev)
	}
}

// errSourceOwned is the error for a person's change of a project that a source owns.
func errSourceOwned(p *carav1.Project) error {
	return api.Owned("project %q belongs to %s: change it in git, or use --override --reason WHY",
		p.GetMetadata().GetName(), whence(p.GetMetadata().GetOwner(), p.GetMetadata().GetOrigin()))
}

// mayTake returns an error if a source may not take a project. It returns nil if the source already owns it or may adopt
// it.
func mayTake(p *carav1.Project, owner, adopt string, handOver []string) error {
	name, have := p.GetMetadata().GetName(), p.GetMetadata().GetOwner()
	switch {
	case have == owner, have != "" && slices.Contains(handOver, have):
		return nil
	case strings.HasPrefix(have, api.PrefixSource):
		return api.Owned("project %q belongs to %s: one of the two sources must let go of it",
			name, whence(have, p.GetMetadata().GetOrigin()))
	case plan.Adopts(have, adopt):
		return nil
	case have == "":
		return api.AdoptionRequired("project %q exists and nobody owns it, and the source's adopt is Never: caractrl adopt %s, or set spec.adopt to IfUnowned", name, name)
	default:
		return api.AdoptionRequired("project %q exists and belongs to %s: caractrl adopt %s, or set the source's spec.adopt to Always", name, have, name)
	}
}

// sameDeclaration reports whether a project has the declared spec, labels and annotations. It compares the specs
// themselves, since a stored hash could be outdated.
func sameDeclaration(p, declared *carav1.Project) bool {
	return api.Hash(p.GetSpec()) == api.Hash(declared.GetSpec()) &&
		sameMap(p.GetMetadata().GetLabels(), declared.GetMetadata().GetLabels()) &&
		sameMap(p.GetMetadata().GetAnnotations(), declared.GetMetadata().GetAnnotations())
}

func sameMap(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// redeclare gives a project the declared spec, labels and annotations; p is the transaction's own copy of old. It reports
// whether anything changed.
func redeclare(t *state.Tx, old, p, declared *carav1.Project, what string) (bool, error) {
	if sameDeclaration(old, declared) {
		return false, nil
	}
	if api.GoingAway(old) {
		return false, errTerminating(old)
	}
	in := proto.CloneOf(declared.GetMetadata())
	p.Metadata.Labels, p.Metadata.Annotations = in.GetLabels(), in.GetAnnotations()
	if api.Hash(old.GetSpec()) == api.Hash(declared.GetSpec()) {
		return true, nil
	}
	return true, changeSpec(t, old, p, declared.GetSpec(), what)
}
