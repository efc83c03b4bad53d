package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/local"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Limits of one call: the server accepts 4 MiB.
const (
	maxBatchBytes   = 3 << 20
	maxBatchObjects = 1000
)

type applyOptions struct {
	*app
	files    []string
	dryRun   bool
	wait     bool
	timeout  time.Duration
	override overrideFlags
	terms    *carav1.OverrideTerms
}

func newApply(a *app) *cobra.Command {
	o := &applyOptions{app: a}
	cmd := command(&cobra.Command{
		Use: "apply -f FILE|DIR|-", Short: "Create or change what the manifests describe", Args: cobra.NoArgs,
		Long: "Create or change what the manifests describe. With --wait the exit code tells how it ended:\n" +
			"0 running, 2 unschedulable, 3 failed, 4 timed out, 1 anything else.",
		Example: "  caractrl apply -f deploy/\n  caractrl apply -f shop.yaml --wait --timeout 2m\n  caractrl apply -f shop.yaml --dry-run",
	}, o)
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "file, directory, or - for standard input")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would happen, and change nothing")
	f.BoolVar(&o.wait, "wait", false, "wait until the projects run")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	o.override.add(cmd)
	return cmd
}

func (o *applyOptions) parse([]string) (err error) {
	if o.terms, err = o.override.terms(); err != nil {
		return err
	}
	return checkTimeout(o.timeout)
}

func (o *applyOptions) run(ctx context.Context) error {
	files := local.Files{}
	objects, err := o.local().Manifests(o.files, files)
	if err != nil {
		return err
	}
	if !o.dryRun {
		if err := files.Store(ctx, o.app, objects); err != nil {
			return err
		}
	}
	refused := 0
	var projects []string
	err = o.applyAll(ctx, objects, &carav1.ApplyRequest{DryRun: o.dryRun, Override: o.terms}, func(r *carav1.ApplyResult) {
		o.printResult(r, o.dryRun)
		switch {
		case r.Action == api.ApplyRefused:
			refused++
		case r.Kind == api.KindProject:
			projects = append(projects, r.Name)
		}
	})
	switch {
	case err != nil:
		return err
	case refused > 0:
		return term.Exit{Code: 1, Message: fmt.Sprintf("%d of %s refused", refused, term.Plural(len(objects), "object"))}
	case o.wait && !o.dryRun:
		return o.await(ctx, newWaiting(projects), o.timeout)
	}
	return nil
}

// applyAll applies objects with the fields of terms, in several calls if necessary, and calls tell with each result in
// order.
func (a *app) applyAll(ctx context.Context, objects []proto.Message, terms *carav1.ApplyRequest, tell func(*carav1.ApplyResult)) error {
	for len(objects) > 0 {
		n, size := 0, 0
		req := proto.CloneOf(terms)
		for _, m := range objects {
			size += proto.Size(m) + 16
			if n > 0 && size > maxBatchBytes || n == maxBatchObjects {
				break
			}
			req.Objects = append(req.Objects, api.Wrap(m))
			n++
		}
		objects = objects[n:]
		resp, err := carav1.NewApplyServiceClient(a).Apply(ctx, req)
		if err != nil {
			return err
		}
		for _, r := range resp.Results {
			tell(r)
		}
	}
	return nil
}

// printResult prints the result for one object: on standard output if it was applied, on standard error if it was refused.
func (a *app) printResult(r *carav1.ApplyResult, dryRun bool) {
	ref := kind.Ref{Kind: kind.Kind{Name: r.Kind}, Name: r.Name}
	if r.Action == api.ApplyRefused {
		fmt.Fprintf(a.Err, "%s refused: %s\n", ref, term.Line(r.Problem.GetDetail()))
		if len(r.Problem.GetErrors()) > 1 {
			a.printFields(r.Problem)
		}
		return
	}
	note := ""
	if dryRun {
		note = " (dry run)"
	}
	fmt.Fprintf(a.Out, "%s %s%s\n", ref, term.Line(r.Action), note)
}
