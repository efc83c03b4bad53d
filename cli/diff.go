package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Exit codes of diff: 0 nothing differs, 1 something does, above that it cannot be told.
const (
	exitDiffers = 1
	exitNoDiff  = 2
)

func (a *app) diffCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "diff -f FILE|DIR|- | diff source/NAME...", Short: "Show what apply would change, or what a source would, field by field",
		Long: "Show, field by field, what apply would change; or how the cluster differs from what a source declares now. The exit code\n" +
			"is 0 where nothing differs, 1 where something does, and 2 where it cannot be told.",
		Example:           "  caractrl diff -f deploy/\n  caractrl diff source/platform",
		ValidArgsFunction: a.completeRefs(func(k kind.Kind) bool { return k.Name == api.KindSource }),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 0 && len(files) > 0:
				return errors.New("say what to compare by name or with -f, not both")
			case len(args) > 0:
				return a.diffSources(cmd.Context(), args)
			}
			return a.diff(cmd.Context(), files)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file, directory, or - for standard input")
	return cmd
}

func (a *app) diffSources(ctx context.Context, args []string) error {
	refs, err := kind.ParseRefs(args)
	if err != nil {
		return err
	}
	code := 0
	for _, r := range refs {
		switch {
		case r.Kind.Name != api.KindSource:
			return fmt.Errorf("%s have no diff: name a source, as in diff source/NAME, or manifests with -f", r.Kind.Plural)
		case r.Name == "":
			return errors.New("say which: diff source/NAME")
		}
		c, err := a.diffSource(ctx, r.Name)
		if err != nil {
			return err
		}
		code = max(code, c)
	}
	if code != 0 {
		return Exit{Code: code}
	}
	return nil
}

func (a *app) diff(ctx context.Context, files []string) error {
	objects, err := a.readManifests(files)
	if err != nil {
		return err
	}
	results, err := a.planned(ctx, objects)
	if err != nil {
		return err
	}
	code := 0
	for _, r := range results {
		switch r.Action {
		case api.ApplyUnchanged:
		case api.ApplyRefused:
			code = exitNoDiff
			a.printResult(r, true)
		default:
			code = max(code, exitDiffers)
			a.printDiff(r)
		}
		if r.Problem != nil && r.Action != api.ApplyRefused {
			fmt.Fprintf(a.Err, "note: %s\n", term.Line(r.Problem.GetDetail()))
		}
	}
	if code != 0 {
		return Exit{Code: code}
	}
	return nil
}

// planned is what apply would do. Where it would refuse since a source owns the project, the plan is that of an override,
// with the refusal as its problem: what would change can be seen without deciding to do it.
func (a *app) planned(ctx context.Context, objects []proto.Message) ([]*carav1.ApplyResult, error) {
	var results []*carav1.ApplyResult
	var owned []proto.Message
	var at []int
	err := a.applyAll(ctx, objects, &carav1.ApplyRequest{DryRun: true}, func(r *carav1.ApplyResult) {
		if r.Action == api.ApplyRefused && r.Problem.GetTitle() == api.TitleOwned {
			owned, at = append(owned, objects[len(results)]), append(at, len(results))
		}
		results = append(results, r)
	})
	if err != nil {
		return nil, err
	}
	terms := &carav1.ApplyRequest{DryRun: true, Override: &carav1.OverrideTerms{Reason: "caractrl diff"}}
	err = a.applyAll(ctx, owned, terms, func(r *carav1.ApplyResult) {
		i := at[0]
		at = at[1:]
		if r.Action != api.ApplyRefused {
			r.Problem = results[i].Problem
		}
		results[i] = r
	})
	return results, err
}

// printDiff shows each field as a diff does: what goes, then what comes.
func (a *app) printDiff(r *carav1.ApplyResult) {
	fmt.Fprintf(a.Out, "%s would be %s\n", kind.Ref{Kind: kind.Kind{Name: r.Kind}, Name: r.Name}, term.Line(r.Action))
	a.printFieldDiffs(r.Diff)
}

func (a *app) printFieldDiffs(diff []*carav1.FieldDiff) {
	colour := term.Colourful(a.Out)
	show := func(sign, paint, path, value string) {
		if value == "" {
			return
		}
		s := fmt.Sprintf("  %s %s: %s", sign, term.Line(path), term.Line(value))
		if colour {
			s = paint + s + term.Reset
		}
		fmt.Fprintln(a.Out, s)
	}
	for _, d := range diff {
		show("-", term.Red, d.Path, d.Old)
		show("+", term.Green, d.Path, d.New)
	}
}
