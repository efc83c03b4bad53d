package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (a *app) diffCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "diff -f FILE|DIR|-", Short: "Show what apply would change, field by field", Args: cobra.NoArgs,
		Long: "Show what apply would change, field by field. The exit code is 0 where nothing would change, 1 where something would,\n" +
			"and above 1 where it cannot be told.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.diff(cmd.Context(), files) },
	}
	cmd.Flags().StringSliceVarP(&files, "filename", "f", nil, "file, directory, or - for standard input")
	return cmd
}

func (a *app) diff(ctx context.Context, files []string) error {
	results, err := a.dryRun(ctx, files)
	if err != nil {
		printError(a.Err, err)
		return Exit{Code: 2}
	}
	differs, refused := false, false
	t := newTable(a.Out)
	for _, r := range results {
		switch r.Action {
		case "refused":
			refused = true
			a.printResult(r, true)
		case "unchanged":
		default:
			differs = true
			a.printDiff(t, r)
		}
	}
	switch {
	case refused:
		return Exit{Code: 2}
	case differs:
		return Exit{Code: 1}
	}
	return nil
}

func (a *app) dryRun(ctx context.Context, files []string) ([]*carav1.ApplyResult, error) {
	objects, err := a.readManifests(files)
	if err != nil {
		return nil, err
	}
	conn, err := a.dial()
	if err != nil {
		return nil, err
	}
	resp, err := carav1.NewApplyServiceClient(conn).Apply(ctx, &carav1.ApplyRequest{Objects: wrap(objects), DryRun: true})
	return resp.GetResults(), err
}

func (a *app) printDiff(t *table, r *carav1.ApplyResult) {
	fmt.Fprintf(a.Out, "%s/%s would be %s\n", strings.ToLower(r.Kind), clean(r.Name), r.Action)
	for _, d := range r.Diff {
		a.printField(t, d)
	}
}

// printField shows one field as a diff does: what goes, then what comes.
func (a *app) printField(t *table, d *carav1.FieldDiff) {
	show := func(sign, colour, value string) {
		s := fmt.Sprintf("  %s %s: %s", sign, clean(d.Path), line(value))
		if t.colour {
			s = colour + s + reset
		}
		fmt.Fprintln(a.Out, s)
	}
	if d.Old != "" {
		show("-", red, d.Old)
	}
	if d.New != "" {
		show("+", green, d.New)
	}
}
