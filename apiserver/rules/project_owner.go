package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// Claimant returns the claim of the source that will own a project: the named source, or the only one. All claims on the
// project are conditions of the commit.
func Claimant(t *state.Tx, req *carav1.AdoptProjectRequest) (*carav1.ClaimSpec, error) {
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
		return nil, api.BadState("source %q does not declare project %q: declare it there first", req.GetSource(), req.GetName())
	case len(claims) == 0:
		return nil, api.BadState("no source declares project %q: there is nobody to adopt it", req.GetName())
	}
	return nil, api.BadState("project %q is declared by %s: say which one adopts it (--source)", req.GetName(), strings.Join(names, " and "))
}

// OriginOf returns the origin of a claim.
func OriginOf(c *carav1.ClaimSpec) *carav1.Origin {
	return &carav1.Origin{
		Source: c.GetSource(), File: c.GetFile(), Line: c.GetLine(), Revision: c.GetRevision(),
		Author: c.GetAuthor(), Subject: c.GetSubject(), CommitTime: c.GetCommitTime(),
	}
}

// SettleOverride ends the override of a project that no source owns any more.
func SettleOverride(t *state.Tx, p *carav1.Project, why string) error {
	o, ok := state.Read[*carav1.Override](t, p.GetMetadata().GetName())
	if !ok {
		return nil
	}
	expireAt := expiryOf(t, p)
	EndOverride(t, o, why)
	p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), api.CondOverridden)
	if proto.Equal(expireAt, p.GetSpec().GetExpireAt()) {
		return nil
	}
	old, spec := proto.CloneOf(p), proto.CloneOf(p.GetSpec())
	spec.ExpireAt = expireAt
	if err := ChangeSpec(t, old, p, spec, "it keeps the expiry that "+o.GetActor()+" extended it to"); err != nil {
		return err
	}
	KeepRevision(t, p, o.GetReason())
	return nil
}

// SourceOf returns the source that owns a project, or "".
func SourceOf(p *carav1.Project) string {
	name, _ := api.SourceOf(p.GetMetadata().GetOwner())
	return name
}

// Whence formats where a project comes from: `source/platform, deploy/web.yaml at 1a2b3c4`.
func Whence(owner string, origin *carav1.Origin) string {
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
		p.GetMetadata().GetName(), Whence(p.GetMetadata().GetOwner(), p.GetMetadata().GetOrigin()))
}

// MayTake returns an error if a source may not take a project. It returns nil if the source already owns it or may adopt
// it.
func MayTake(p *carav1.Project, owner, adopt string, handOver []string) error {
	name, have := p.GetMetadata().GetName(), p.GetMetadata().GetOwner()
	switch {
	case have == owner, have != "" && slices.Contains(handOver, have):
		return nil
	case strings.HasPrefix(have, api.PrefixSource):
		return api.Owned("project %q belongs to %s: one of the two sources must let go of it",
			name, Whence(have, p.GetMetadata().GetOrigin()))
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
		maps.Equal(p.GetMetadata().GetLabels(), declared.GetMetadata().GetLabels()) &&
		maps.Equal(p.GetMetadata().GetAnnotations(), declared.GetMetadata().GetAnnotations())
}

// redeclare gives a project the declared spec, labels and annotations; p is the transaction's own copy of old. It reports
// whether anything changed.
func redeclare(t *state.Tx, old, p, declared *carav1.Project, what string) (bool, error) {
	if sameDeclaration(old, declared) {
		return false, nil
	}
	if api.GoingAway(old) {
		return false, ErrTerminating(old)
	}
	in := proto.CloneOf(declared.GetMetadata())
	p.Metadata.Labels, p.Metadata.Annotations = in.GetLabels(), in.GetAnnotations()
	if api.Hash(old.GetSpec()) == api.Hash(declared.GetSpec()) {
		return true, nil
	}
	return true, ChangeSpec(t, old, p, declared.GetSpec(), what)
}
