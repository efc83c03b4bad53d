package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

type applyOptions struct {
	files    []string
	dryRun   bool
	wait     bool
	timeout  time.Duration
	override overrideOptions
}

// overrideOptions are the flags of a human decision against git.
type overrideOptions struct {
	override        bool
	reason          string
	length          time.Duration
	untilNextChange bool
}

func (o *overrideOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.override, "override", false, "do it although a source owns the project; git has no say until the override ends")
	f.StringVar(&o.reason, "reason", "", "why (required with --override)")
	f.DurationVar(&o.length, "for", 0, "end the override after this long")
	f.BoolVar(&o.untilNextChange, "until-next-change", false, "end the override when the manifest in git changes")
	cmd.MarkFlagsMutuallyExclusive("for", "until-next-change")
}

func (o *overrideOptions) terms() (*carav1.OverrideTerms, error) {
	if !o.override {
		if o.reason != "" || o.length != 0 || o.untilNextChange {
			return nil, fmt.Errorf("--reason, --for and --until-next-change go with --override")
		}
		return nil, nil
	}
	if strings.TrimSpace(o.reason) == "" {
		return nil, fmt.Errorf("--override needs --reason WHY: whoever is woken by it will want to know")
	}
	t := &carav1.OverrideTerms{Reason: o.reason, UntilNextChange: o.untilNextChange}
	if o.length != 0 {
		t.For = durationpb.New(o.length)
	}
	return t, nil
}

func (a *app) applyCommand() *cobra.Command {
	o := applyOptions{}
	cmd := &cobra.Command{
		Use: "apply -f FILE|DIR|-", Short: "Create or change what the manifests describe", Args: cobra.NoArgs,
		Long: "Create or change what the manifests describe. With --wait the exit code tells how it ended:\n" +
			"0 running, 2 unschedulable, 3 failed, 4 timed out, 1 anything else.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.apply(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringSliceVarP(&o.files, "filename", "f", nil, "file, directory, or - for standard input")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would happen, and do nothing")
	f.BoolVar(&o.wait, "wait", false, "wait until the projects run")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	o.override.flags(cmd)
	return cmd
}

func (a *app) apply(ctx context.Context, o applyOptions) error {
	terms, err := o.override.terms()
	if err != nil {
		return err
	}
	objects, err := a.readManifests(o.files)
	if err != nil {
		return err
	}
	conn, err := a.dial()
	if err != nil {
		return err
	}
	resp, err := carav1.NewApplyServiceClient(conn).Apply(ctx, &carav1.ApplyRequest{
		Objects: wrap(objects), DryRun: o.dryRun, Override: terms,
	})
	if err != nil {
		return err
	}
	refused := 0
	var projects []string
	for _, r := range resp.Results {
		a.printResult(r, o.dryRun)
		switch {
		case r.Action == "refused":
			refused++
		case r.Kind == api.KindProject:
			projects = append(projects, r.Name)
		}
	}
	if refused > 0 {
		return Exit{Code: 1, Message: fmt.Sprintf("%d of %d objects were refused", refused, len(resp.Results))}
	}
	if !o.wait || o.dryRun {
		return nil
	}
	return a.waitRunning(ctx, projects, o.timeout)
}

func (a *app) printResult(r *carav1.ApplyResult, dryRun bool) {
	note := ""
	if dryRun {
		note = " (dry run)"
	}
	if r.Action != "refused" {
		fmt.Fprintf(a.Out, "%s/%s %s%s\n", strings.ToLower(r.Kind), clean(r.Name), r.Action, note)
		return
	}
	fmt.Fprintf(a.Err, "%s/%s refused: %s\n", strings.ToLower(r.Kind), clean(r.Name), line(r.Problem.GetDetail()))
	for _, e := range r.Problem.GetErrors() {
		fmt.Fprintf(a.Err, "  %s: %s\n", clean(e.Field), line(e.Message))
	}
}
