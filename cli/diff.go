package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

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
		Use: "diff -f FILE|DIR|-", Short: "Show what apply would change, field by field", Args: cobra.NoArgs,
		Long: "Show what apply would change, field by field. The exit code is 0 where nothing would change, 1 where something would,\n" +
			"and 2 where it cannot be told.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.diff(cmd.Context(), files) },
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file, directory, or - for standard input")
	return cmd
}

func (a *app) diff(ctx context.Context, files []string) error {
	objects, err := a.readManifests(files)
	if err != nil {
		return err
	}
	code := 0
	err = a.applyAll(ctx, objects, &carav1.ApplyRequest{DryRun: true}, func(r *carav1.ApplyResult) {
		switch r.Action {
		case unchangedAction:
		case refusedAction:
			code = exitNoDiff
			a.printResult(r, true)
		default:
			code = max(code, exitDiffers)
			a.printDiff(r)
		}
	})
	if err != nil {
		return err
	}
	if code != 0 {
		return Exit{Code: code}
	}
	return nil
}

// printDiff shows each field as a diff does: what goes, then what comes.
func (a *app) printDiff(r *carav1.ApplyResult) {
	fmt.Fprintf(a.Out, "%s would be %s\n", ref{kind{name: r.Kind}, r.Name}, line(r.Action))
	colour := colourful(a.Out)
	show := func(sign, paint, path, value string) {
		if value == "" {
			return
		}
		s := fmt.Sprintf("  %s %s: %s", sign, line(path), line(value))
		if colour {
			s = paint + s + reset
		}
		fmt.Fprintln(a.Out, s)
	}
	for _, d := range r.Diff {
		show("-", red, d.Path, d.Old)
		show("+", green, d.Path, d.New)
	}
}
