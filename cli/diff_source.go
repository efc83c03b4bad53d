package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// diffSource shows how the cluster differs from what a source declares, and returns the exit code. What would be done is
// the server's own plan.
func (a *app) diffSource(ctx context.Context, name string) (int, error) {
	c, err := a.sources()
	if err != nil {
		return 0, err
	}
	source, err := c.GetSource(ctx, kind.ByName(name))
	if err != nil {
		return 0, err
	}
	plan, err := c.PlanSource(ctx, kind.ByName(name))
	if err != nil {
		return 0, err
	}
	code := 0
	for _, trouble := range troubles(source) {
		fmt.Fprintf(a.Err, "source/%s: %s\n", term.Clean(name), term.Line(trouble))
		code = exitNoDiff
	}
	if source.GetSpec().GetSuspend() {
		fmt.Fprintf(a.Err, "source/%s is suspended: nothing of this happens before caractrl resume %s\n", term.Clean(name), term.Clean(name))
	}
	return a.printPlan(plan, code), nil
}

// printPlan shows a source's plan in the order of the projects' names, and returns the exit code.
func (a *app) printPlan(plan *carav1.SourcePlan, code int) int {
	steps := plan.GetSteps()
	slices.SortStableFunc(steps, func(x, y *carav1.PlanStep) int { return strings.Compare(x.GetProject(), y.GetProject()) })
	blocked := false
	for _, s := range steps {
		switch {
		case s.GetReason() == api.ClaimHeld:
			code = exitNoDiff
			fmt.Fprintf(a.Err, "project/%s is kept as it is: %s\n", term.Line(s.GetProject()), term.Line(s.GetMessage()))
			continue
		case !s.GetDiffers():
			continue
		}
		blocked = blocked || s.GetReason() == api.ClaimPruneBlocked && !pruneIsOff(plan)
		code = max(code, exitDiffers)
		fmt.Fprintf(a.Out, "project/%s %s\n", term.Line(s.GetProject()), term.Line(planned(s, plan)))
		a.printFieldDiffs(s.GetDiff())
	}
	if blocked {
		fmt.Fprintf(a.Err, "source/%s: the prune is blocked: %s\n", term.Clean(plan.GetSource()), term.Line(strings.Join(plan.GetPruneBlocked(), "; ")))
	}
	return code
}

// planned says what a step does, or why it does nothing.
func planned(s *carav1.PlanStep, plan *carav1.SourcePlan) string {
	owner := api.OrNobody(s.GetOwner())
	switch s.GetAction() {
	case api.PlanCreate:
		return "would be created" + lastAttempt(s)
	case api.PlanUpdate:
		return "would be configured" + lastAttempt(s)
	case api.PlanAdopt:
		return "would be adopted, it belongs to " + owner + lastAttempt(s)
	case api.PlanHandOver:
		return "would be taken over from " + owner + lastAttempt(s)
	case api.PlanDelete:
		return "would be pruned"
	}
	switch s.GetReason() {
	case api.ReasonDeleting:
		return "is being deleted: git would create it again"
	case api.ClaimOverridden:
		return "is " + s.GetMessage()
	case api.ClaimPruneBlocked:
		if pruneIsOff(plan) {
			return "is kept, it left the source: " + plan.GetPruneBlocked()[0]
		}
		return "would be pruned, and is not: the prune is blocked"
	case api.ReasonUnclaimed:
		return "is kept: " + s.GetMessage()
	case api.ReasonLeftToOther, api.ReasonInventory:
		return "is kept, it left the source: " + s.GetMessage()
	}
	return "stays as it is: " + s.GetMessage()
}

// pruneIsOff reports whether the only reason against pruning is that the source's owner does not want it.
func pruneIsOff(plan *carav1.SourcePlan) bool {
	return len(plan.GetPruneBlocked()) == 1 && plan.GetPruneBlocked()[0] == api.PruneOff
}

// lastAttempt is what became of the last attempt to apply a project, if that went wrong.
func lastAttempt(s *carav1.PlanStep) string {
	switch state := s.GetClaimState(); state {
	case api.ClaimRefused, api.ClaimNotAllowed, api.ClaimStalled:
		return ", and is not (" + state + "): " + s.GetClaimMessage()
	}
	return ""
}

func claimed(c *carav1.Claim) string { return c.GetSpec().GetProject().GetMetadata().GetName() }

// troubles are why it is not known what a source declares now.
func troubles(source *carav1.Source) []string {
	st := source.GetStatus()
	if st.GetSnapshot() == nil {
		return []string{"it has not been read yet"}
	}
	var out []string
	if c := api.FindCondition(st.GetConditions(), api.CondFetchFailed); c.GetStatus() == api.StatusTrue {
		out = append(out, fmt.Sprintf("it cannot be read, what follows is of %s: %s", api.ShortRevision(st.GetSnapshot().GetRevision()), c.GetMessage()))
	}
	for _, p := range st.GetSnapshot().GetFileErrors() {
		out = append(out, manifest.Format(p))
	}
	return out
}
