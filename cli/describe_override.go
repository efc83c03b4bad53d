package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// describeOverride says who took git's say away, why and until when, and what git would change.
func (a *app) describeOverride(ctx context.Context, p *carav1.Project) error {
	if !api.IsTrue(p.GetStatus().GetConditions(), api.CondOverridden) {
		return nil
	}
	projects, err := a.projects()
	if err != nil {
		return err
	}
	all, err := projects.ListOverrides(ctx, &carav1.ListRequest{})
	if err != nil {
		return err
	}
	name := p.GetMetadata().GetName()
	i := slices.IndexFunc(all.GetItems(), func(o *carav1.Override) bool { return o.GetMetadata().GetName() == name })
	if i < 0 { // it has just ended
		return nil
	}
	o := all.GetItems()[i]
	a.section("Override")
	a.field("  Scope", o.GetScope())
	a.field("  By", o.GetActor()+", "+term.Ago(a.now(), o.GetSince()).Text)
	a.field("  Until", kind.OverrideEnd(a.now(), o).Text)
	a.field("  Reason", o.GetReason())
	if o.GetScope() == api.OverrideExpiry {
		return nil
	}
	claim, err := a.claimOn(ctx, p)
	if err != nil {
		return err
	}
	diff := api.Diff(p, claim.GetSpec().GetProject())
	switch {
	case claim == nil || !claim.GetSpec().GetPresent():
		fmt.Fprintln(a.Out, "  Git would delete it: its manifest left the source")
	case len(diff) == 0:
		fmt.Fprintln(a.Out, "  Git says the same")
	default:
		fmt.Fprintln(a.Out, "  Git would change:")
		a.printFieldDiffs(diff)
	}
	return nil
}

// claimOn is what the source that owns a project says of it, or nil.
func (a *app) claimOn(ctx context.Context, p *carav1.Project) (*carav1.Claim, error) {
	source, owned := api.SourceOf(p.GetMetadata().GetOwner())
	if !owned {
		return nil, nil
	}
	c, err := a.sources()
	if err != nil {
		return nil, err
	}
	claims, err := c.ListClaims(ctx, &carav1.ListClaimsRequest{Source: source})
	if err != nil && !api.IsNotFound(err) { // a source that is gone says nothing
		return nil, err
	}
	for _, claim := range claims.GetItems() {
		if claimed(claim) == p.GetMetadata().GetName() {
			return claim, nil
		}
	}
	return nil, nil
}
