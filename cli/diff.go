package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/local"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/manifest"
)

// Exit codes of diff: 0 no difference, 1 a difference, 2 unknown.
const (
	exitDiffers = 1
	exitNoDiff  = 2
)

type diffOptions struct {
	*app
	files   []string
	sources []kind.Ref
}

func newDiff(a *app) *cobra.Command {
	o := &diffOptions{app: a}
	cmd := command(&cobra.Command{
		Use: "diff -f FILE|DIR|- | diff source/NAME...", Short: "Show what apply would change, or what a source would, field by field",
		Long: "Show, field by field, what apply would change; or how the cluster differs from what a source declares now. The exit code\n" +
			"is 0 if nothing differs, 1 if something differs, and 2 if that is not known.",
		Example:           "  caractrl diff -f deploy/\n  caractrl diff source/platform",
		ValidArgsFunction: completion{a}.refs(func(k kind.Kind) bool { return k.Name == api.KindSource }),
	}, o)
	cmd.Flags().StringArrayVarP(&o.files, "filename", "f", nil, "file, directory, or - for standard input")
	return cmd
}

func (o *diffOptions) parse(args []string) (err error) {
	switch {
	case len(args) > 0 && len(o.files) > 0:
		return errors.New("name a source or give manifests with -f, not both")
	case len(args) == 0:
		return nil
	}
	if o.sources, err = kind.ParseRefs(args); err != nil {
		return err
	}
	for _, r := range o.sources {
		switch {
		case r.Kind.Name != api.KindSource:
			return fmt.Errorf("%s have no diff: name a source, as in diff source/NAME, or manifests with -f", r.Kind.Plural)
		case r.Name == "":
			return errors.New("name the source: diff source/NAME")
		}
	}
	return nil
}

func (o *diffOptions) run(ctx context.Context) error {
	code := 0
	for _, r := range o.sources {
		c, err := o.diffSource(ctx, r.Name)
		if err != nil {
			return err
		}
		code = max(code, c)
	}
	if len(o.sources) == 0 {
		var err error
		if code, err = o.diffFiles(ctx); err != nil {
			return err
		}
	}
	if code != 0 {
		return term.Exit{Code: code}
	}
	return nil
}

// diffFiles shows what apply would change, and returns the exit code.
func (o *diffOptions) diffFiles(ctx context.Context) (code int, err error) {
	objects, err := o.local().Manifests(o.files, local.Files{})
	if err != nil {
		return 0, err
	}
	results, err := o.planned(ctx, objects)
	if err != nil {
		return 0, err
	}
	for _, r := range results {
		switch r.Action {
		case api.ApplyUnchanged:
		case api.ApplyRefused:
			code = exitNoDiff
			o.printResult(r, true)
		default:
			code = max(code, exitDiffers)
			o.printDiff(r)
		}
		if r.Problem != nil && r.Action != api.ApplyRefused {
			fmt.Fprintf(o.Err, "note: %s\n", term.Line(r.Problem.GetDetail()))
		}
	}
	return code, nil
}

// planned returns what apply would do. If apply would refuse because a source owns the project, it returns the plan of an
// override, with the refusal as its problem, so that people see what would change.
func (o *diffOptions) planned(ctx context.Context, objects []proto.Message) ([]*carav1.ApplyResult, error) {
	var results []*carav1.ApplyResult
	var owned []proto.Message
	var at []int
	err := o.applyAll(ctx, objects, &carav1.ApplyRequest{DryRun: true}, func(r *carav1.ApplyResult) {
		if r.Action == api.ApplyRefused && r.Problem.GetTitle() == api.TitleOwned {
			owned, at = append(owned, objects[len(results)]), append(at, len(results))
		}
		results = append(results, r)
	})
	if err != nil {
		return nil, err
	}
	terms := &carav1.ApplyRequest{DryRun: true, Override: &carav1.OverrideTerms{Reason: "caractrl diff"}}
	err = o.applyAll(ctx, owned, terms, func(r *carav1.ApplyResult) {
		i := at[0]
		at = at[1:]
		if r.Action != api.ApplyRefused {
			r.Problem = results[i].Problem
		}
		results[i] = r
	})
	return results, err
}

func (o *diffOptions) printDiff(r *carav1.ApplyResult) {
	fmt.Fprintf(o.Out, "%s would be %s\n", kind.Ref{Kind: kind.Kind{Name: r.Kind}, Name: r.Name}, term.Line(r.Action))
	kind.PrintDiff(o.Out, r.Diff)
}

// diffSource shows how the cluster differs from a source's declaration, and returns the exit code. The server computes the
// plan.
func (o *diffOptions) diffSource(ctx context.Context, name string) (int, error) {
	c := o.app.sources()
	source, err := c.GetSource(ctx, kind.ByName(name))
	if err != nil {
		return 0, err
	}
	plan, err := c.PlanSource(ctx, &carav1.PlanSourceRequest{Name: name})
	if err != nil {
		return 0, err
	}
	code := 0
	for _, trouble := range troubles(source) {
		fmt.Fprintf(o.Err, "source/%s: %s\n", term.Clean(name), term.Line(trouble))
		code = exitNoDiff
	}
	if source.GetSpec().GetSuspend() {
		fmt.Fprintf(o.Err, "source/%s is suspended: nothing of this happens before caractrl resume %s\n", term.Clean(name), term.Clean(name))
	}
	return o.printPlan(plan, code), nil
}

// printPlan shows a source's plan sorted by project, and returns the exit code.
func (o *diffOptions) printPlan(plan *carav1.SourcePlan, code int) int {
	steps := plan.GetSteps()
	slices.SortStableFunc(steps, func(x, y *carav1.PlanStep) int { return strings.Compare(x.GetProject(), y.GetProject()) })
	blocked := false
	for _, s := range steps {
		switch {
		case s.GetReason() == api.ClaimHeld:
			code = exitNoDiff
			fmt.Fprintf(o.Err, "project/%s is kept as it is: %s\n", term.Line(s.GetProject()), term.Line(s.GetMessage()))
			continue
		case !s.GetDiffers():
			continue
		}
		blocked = blocked || s.GetReason() == api.ClaimPruneBlocked && !api.PruneIsOff(plan)
		code = max(code, exitDiffers)
		fmt.Fprintf(o.Out, "project/%s %s\n", term.Line(s.GetProject()), term.Line(api.StepText(s, plan)))
		kind.PrintDiff(o.Out, s.GetDiff())
	}
	if blocked {
		fmt.Fprintf(o.Err, "source/%s: the prune is blocked: %s\n", term.Clean(plan.GetSource()), term.Line(strings.Join(plan.GetPruneBlocked(), "; ")))
	}
	return code
}

// troubles returns why a source's current declaration is unknown.
func troubles(source *carav1.Source) []string {
	st := source.GetStatus()
	if st.GetSnapshot() == nil {
		return []string{"it has not been read yet"}
	}
	var out []string
	if c := api.FindCondition(st.GetConditions(), api.CondFetchFailed); c.GetStatus() == api.StatusTrue {
		out = append(out, fmt.Sprintf("it cannot be read, so this is the state of %s: %s", api.ShortRevision(st.GetSnapshot().GetRevision()), c.GetMessage()))
	}
	for _, p := range st.GetSnapshot().GetFileErrors() {
		out = append(out, manifest.Format(p))
	}
	return out
}
