package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type traceOptions struct{ named }

func newTrace(a *app) *cobra.Command {
	o := &traceOptions{aboutProject(a)}
	return o.one(&cobra.Command{
		Use: "trace PROJECT", Short: "Show where a project comes from: file, commit, source, when it was applied, where it runs",
		Example: "  caractrl trace web",
	}, o)
}

func (o *traceOptions) run(ctx context.Context) error {
	c := o.projects()
	p, err := c.GetProject(ctx, kind.ByName(o.name))
	if api.IsNotFound(err) {
		return o.gone(ctx, c, err)
	}
	if err != nil {
		return err
	}
	claim, err := kind.ClaimOn(ctx, o.app, p)
	if err != nil {
		return err
	}
	history, err := c.GetProjectHistory(ctx, kind.ByName(o.name))
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "project/%s\n", term.Line(o.name))
	source, err := o.source(ctx, p, claim)
	if err != nil {
		return err
	}
	o.origin(p, claim)
	o.field("  Source", source)
	o.applied(history.GetItems())
	o.field("  Runs", o.place(p))
	if why := api.FindCondition(p.GetStatus().GetConditions(), api.CondOverridden); why.GetStatus() == api.StatusTrue {
		o.field("  Override", why.GetMessage())
	}
	return nil
}

func (o *traceOptions) field(name, value string) { kind.Page{Out: o.Out}.Field(name, value) }

// origin shows the applied manifest, and the manifest that the source declares now if it differs. If a file is only moved,
// nothing is applied: the claim has the new place, and the project the old one.
func (o *traceOptions) origin(p *carav1.Project, claim *carav1.Claim) {
	spec, origin := claim.GetSpec(), p.GetMetadata().GetOrigin()
	now := &carav1.Origin{
		File: spec.GetFile(), Line: spec.GetLine(), Revision: spec.GetRevision(),
		Author: spec.GetAuthor(), Subject: spec.GetSubject(), CommitTime: spec.GetCommitTime(),
	}
	if spec.GetPresent() && len(api.Diff(p, spec.GetProject())) == 0 {
		origin = now
	}
	if origin.GetFile() == "" {
		return
	}
	o.field("  Manifest", fmt.Sprintf("%s:%d", origin.GetFile(), origin.GetLine()))
	o.field("  Commit", o.commit(origin))
	switch {
	case claim == nil, origin == now:
	case !spec.GetPresent():
		o.field("  Declared", "no longer: its manifest left the source")
	default:
		o.field("  Declared", fmt.Sprintf("%s:%d, %s", now.GetFile(), now.GetLine(), o.commit(now)))
	}
}

// commit shows a revision with its author, time and subject, if it has them.
func (o *traceOptions) commit(from *carav1.Origin) string {
	s := api.ShortRevision(from.GetRevision())
	if from.GetAuthor() != "" {
		s += " by " + from.GetAuthor()
	}
	if from.GetCommitTime() != nil {
		s += ", " + term.Ago(o.now(), from.GetCommitTime()).Text
	}
	if from.GetSubject() != "" {
		s += ": " + from.GetSubject()
	}
	return s
}

// source shows the source with its address and the state of its claim.
func (o *traceOptions) source(ctx context.Context, p *carav1.Project, claim *carav1.Claim) (string, error) {
	owner := p.GetMetadata().GetOwner()
	name, owned := api.SourceOf(owner)
	if !owned {
		return "none, it belongs to " + api.OrNobody(owner), nil
	}
	s, err := o.sources().GetSource(ctx, kind.ByName(name))
	switch {
	case api.IsNotFound(err):
		return owner + ", which is gone", nil
	case err != nil:
		return "", err
	}
	from := s.GetSpec().GetDir().GetPath()
	if g := s.GetSpec().GetGit(); g != nil {
		from = g.GetUrl() + " " + api.RefText(g.GetRef())
	}
	text := owner + ", " + from
	if state := claim.GetStatus().GetState(); state != "" && state != api.ClaimApplied && state != api.ClaimOverridden { // the override has its own line
		text += ", " + strings.TrimSuffix(state+": "+claim.GetStatus().GetMessage(), ": ")
	}
	return text, nil
}

// applied shows the last write of the project's spec.
func (o *traceOptions) applied(history []*carav1.Revision) {
	if len(history) == 0 {
		return
	}
	last := history[0]
	s := fmt.Sprintf("%s by %s, generation %d", term.Ago(o.now(), last.GetTime()).Text, last.GetActor(), last.GetGeneration())
	if last.GetReason() != "" {
		s += ": " + last.GetReason()
	}
	o.field("  Applied", s)
}

// place shows the phase and the node, and since when.
func (o *traceOptions) place(p *carav1.Project) string {
	s := kind.PhaseCell(p, o.now()).Text
	if node := p.GetStatus().GetNodeRef(); node != "" {
		s += " on " + node
	}
	if at := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase).GetLastTransitionTime(); at != nil {
		s += " for " + term.Since(o.now(), at).Text
	}
	return s + ", " + kind.ReadyText(p) + " ready"
}

// gone describes a deleted project from its tombstone.
func (o *traceOptions) gone(ctx context.Context, c carav1.ProjectServiceClient, notFound error) error {
	all, err := c.ListTombstones(ctx, &carav1.ListRequest{})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all.GetItems(), func(t *carav1.Tombstone) bool { return t.GetMetadata().GetName() == o.name })
	if i < 0 {
		return notFound
	}
	t := all.GetItems()[i]
	return fmt.Errorf("project %q is gone: %s by %s %s; it belonged to %s",
		o.name, t.GetReason(), t.GetActor(), term.Ago(o.now(), t.GetTime()).Text, api.OrNobody(t.GetOwner()))
}
