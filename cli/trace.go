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

func (a *app) traceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "trace PROJECT", Short: "Show where a project comes from: file, commit, source, when it was applied, where it runs",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeNames(kind.Project()),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.trace(cmd.Context(), kind.Bare(kind.Project(), args[0]))
		},
	}
}

func (a *app) trace(ctx context.Context, name string) error {
	c, err := a.projects()
	if err != nil {
		return err
	}
	p, err := c.GetProject(ctx, kind.ByName(name))
	if api.IsNotFound(err) {
		return a.traceGone(ctx, name, err)
	}
	if err != nil {
		return err
	}
	claim, err := a.claimOn(ctx, p)
	if err != nil {
		return err
	}
	history, err := c.GetProjectHistory(ctx, kind.ByName(name))
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "project/%s\n", term.Line(name))
	source, err := a.sourceText(ctx, p, claim)
	if err != nil {
		return err
	}
	a.traceOrigin(p, claim)
	a.field("  Source", source)
	a.traceApplied(history.GetItems())
	a.field("  Runs", a.whereabouts(p))
	if why := api.FindCondition(p.GetStatus().GetConditions(), api.CondOverridden); why.GetStatus() == api.StatusTrue {
		a.field("  Override", why.GetMessage())
	}
	return nil
}

// traceOrigin shows the manifest that a project is, and the one that its source declares now where that is another. A
// file that was moved changes nothing, so that the claim knows its place and the project does not.
func (a *app) traceOrigin(p *carav1.Project, claim *carav1.Claim) {
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
	a.field("  Manifest", fmt.Sprintf("%s:%d", origin.GetFile(), origin.GetLine()))
	a.field("  Commit", a.commitText(origin))
	switch {
	case claim == nil, origin == now:
	case !spec.GetPresent():
		a.field("  Declared", "no more: its manifest left the source")
	default:
		a.field("  Declared", fmt.Sprintf("%s:%d, %s", now.GetFile(), now.GetLine(), a.commitText(now)))
	}
}

// commitText is a revision with what is known of it: of a directory, nothing more.
func (a *app) commitText(o *carav1.Origin) string {
	s := api.ShortRevision(o.GetRevision())
	if o.GetAuthor() != "" {
		s += " by " + o.GetAuthor()
	}
	if o.GetCommitTime() != nil {
		s += ", " + term.Ago(a.now(), o.GetCommitTime()).Text
	}
	if o.GetSubject() != "" {
		s += ": " + o.GetSubject()
	}
	return s
}

// sourceText is the source with its address and what it made of its claim.
func (a *app) sourceText(ctx context.Context, p *carav1.Project, claim *carav1.Claim) (string, error) {
	owner := p.GetMetadata().GetOwner()
	name, owned := api.SourceOf(owner)
	if !owned {
		return "none, it belongs to " + api.OrNobody(owner), nil
	}
	c, err := a.sources()
	if err != nil {
		return "", err
	}
	s, err := c.GetSource(ctx, kind.ByName(name))
	switch {
	case api.IsNotFound(err):
		return owner + ", which is gone", nil
	case err != nil:
		return "", err
	}
	from := s.GetSpec().GetDir().GetPath()
	if g := s.GetSpec().GetGit(); g != nil {
		from = g.GetUrl() + " " + kind.RefText(g.GetRef())
	}
	text := owner + ", " + from
	if state := claim.GetStatus().GetState(); state != "" && state != api.ClaimApplied && state != api.ClaimOverridden { // the override has a line of its own
		text += ", " + strings.TrimSuffix(state+": "+claim.GetStatus().GetMessage(), ": ")
	}
	return text, nil
}

// traceApplied shows the last write of the project's spec.
func (a *app) traceApplied(history []*carav1.Revision) {
	if len(history) == 0 {
		return
	}
	last := history[0]
	s := fmt.Sprintf("%s by %s, generation %d", term.Ago(a.now(), last.GetTime()).Text, last.GetActor(), last.GetGeneration())
	if last.GetReason() != "" {
		s += ": " + last.GetReason()
	}
	a.field("  Applied", s)
}

// whereabouts is the phase with its node, and since when.
func (a *app) whereabouts(p *carav1.Project) string {
	s := kind.PhaseCell(p, a.now()).Text
	if node := p.GetStatus().GetNodeRef(); node != "" {
		s += " on " + node
	}
	if at := api.FindCondition(p.GetStatus().GetConditions(), api.CondPhase).GetLastTransitionTime(); at != nil {
		s += " for " + term.Since(a.now(), at).Text
	}
	return s + ", " + kind.ReadyText(p) + " ready"
}

// traceGone says what became of a project that is not there, as far as that is still known.
func (a *app) traceGone(ctx context.Context, name string, notFound error) error {
	c, err := a.projects()
	if err != nil {
		return err
	}
	all, err := c.ListTombstones(ctx, &carav1.ListRequest{})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all.GetItems(), func(t *carav1.Tombstone) bool { return t.GetMetadata().GetName() == name })
	if i < 0 {
		return notFound
	}
	t := all.GetItems()[i]
	return fmt.Errorf("project %q is gone: %s by %s %s; it belonged to %s",
		name, t.GetReason(), t.GetActor(), term.Ago(a.now(), t.GetTime()).Text, api.OrNobody(t.GetOwner()))
}
