package kind

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Override is the kind Override: decisions of people against git.
func Override() Kind {
	return Kind{
		Name: api.KindOverride, Plural: "overrides",
		Columns: []string{"PROJECT", "SCOPE", "ACTOR", "REASON", "SINCE", "UNTIL"},
		Row: func(m proto.Message, now time.Time) []term.Cell {
			o := m.(*carav1.Override)
			return []term.Cell{
				term.Text(o.GetMetadata().GetName()), term.Text(o.Scope), term.Text(o.Actor), term.Text(o.Reason), term.Ago(now, o.Since), OverrideEnd(now, o),
			}
		},
		List: lister(carav1.NewProjectServiceClient, carav1.ProjectServiceClient.ListOverrides, func(f Filter) *carav1.ListOverridesRequest {
			return &carav1.ListOverridesRequest{LabelSelector: f.Selector}
		}),
	}
}

// OverrideEnd returns a cell with the end of an override.
func OverrideEnd(now time.Time, o *carav1.Override) term.Cell {
	switch {
	case o.GetUntilHash() != "":
		return term.Text("git's next change")
	case o.GetUntil() == nil:
		return term.Text("cleared by hand")
	}
	return term.Until(now, o.GetUntil())
}

// UntilWhen returns the end of an override as part of a sentence.
func UntilWhen(now time.Time, o *carav1.Override) string {
	switch {
	case o.GetUntilHash() != "":
		return "until git's next change"
	case o.GetUntil() != nil:
		return "until " + o.GetUntil().AsTime().UTC().Format(time.RFC3339) + " (" + term.Until(now, o.GetUntil()).Text + ")"
	}
	return "until it is cleared"
}

// describeOverride shows the override of a project, if it has one, and what git would change without it.
func describeOverride(ctx context.Context, p Page, project *carav1.Project) error {
	if !api.IsTrue(project.GetStatus().GetConditions(), api.CondOverridden) {
		return nil
	}
	name := project.GetMetadata().GetName()
	all, err := carav1.NewProjectServiceClient(p.Conn).ListOverrides(ctx, &carav1.ListOverridesRequest{Project: name})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all.GetItems(), func(o *carav1.Override) bool { return o.GetMetadata().GetName() == name })
	if i < 0 { // the override has just ended
		return nil
	}
	o := all.GetItems()[i]
	p.section("Override")
	p.Field("  Scope", o.GetScope())
	p.Field("  By", o.GetActor()+", "+term.Ago(p.Now, o.GetSince()).Text)
	p.Field("  Until", OverrideEnd(p.Now, o).Text)
	p.Field("  Reason", o.GetReason())
	if o.GetScope() == api.OverrideExpiry {
		return nil
	}
	return p.heldBack(ctx, project)
}

// heldBack shows what git would change if the override ended now.
func (p Page) heldBack(ctx context.Context, project *carav1.Project) error {
	claim, err := ClaimOn(ctx, p.Conn, project)
	if err != nil {
		return err
	}
	diff := api.Diff(project, claim.GetSpec().GetProject())
	switch {
	case claim == nil || !claim.GetSpec().GetPresent():
		fmt.Fprintln(p.Out, "  Git would delete it: its manifest left the source")
	case len(diff) == 0:
		fmt.Fprintln(p.Out, "  Git says the same")
	default:
		fmt.Fprintln(p.Out, "  Git would change:")
		PrintDiff(p.Out, diff)
	}
	return nil
}

// ClaimOn returns the claim of the source that owns a project; nil if there is none.
func ClaimOn(ctx context.Context, conn grpc.ClientConnInterface, p *carav1.Project) (*carav1.Claim, error) {
	source, owned := api.SourceOf(p.GetMetadata().GetOwner())
	if !owned {
		return nil, nil
	}
	claims, err := carav1.NewSourceServiceClient(conn).ListClaims(ctx, &carav1.ListClaimsRequest{Source: source, Project: p.GetMetadata().GetName()})
	if err != nil && !api.IsNotFound(err) { // a deleted source declares nothing
		return nil, err
	}
	for _, claim := range claims.GetItems() {
		if claim.GetSpec().GetProject().GetMetadata().GetName() == p.GetMetadata().GetName() {
			return claim, nil
		}
	}
	return nil, nil
}

// PrintDiff shows each field as a diff: the old value, then the new one.
func PrintDiff(w io.Writer, diff []*carav1.FieldDiff) {
	colour := term.Colourful(w)
	show := func(sign, paint, path, value string) {
		if value == "" {
			return
		}
		s := fmt.Sprintf("  %s %s: %s", sign, term.Line(path), term.Line(value))
		if colour {
			s = paint + s + term.Reset
		}
		fmt.Fprintln(w, s)
	}
	for _, d := range diff {
		show("-", term.Red, d.Path, d.Old)
		show("+", term.Green, d.Path, d.New)
	}
}
