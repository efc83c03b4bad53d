package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// One call carries this much at most: the server takes 4 MiB.
const (
	maxBatchBytes   = 3 << 20
	maxBatchObjects = 1000
)

type applyOptions struct {
	files    []string
	dryRun   bool
	wait     bool
	timeout  time.Duration
	override overrideOptions
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
	f.StringArrayVarP(&o.files, "filename", "f", nil, "file, directory, or - for standard input")
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
	refused := 0
	var projects []string
	err = a.applyAll(ctx, objects, &carav1.ApplyRequest{DryRun: o.dryRun, Override: terms}, func(r *carav1.ApplyResult) {
		a.printResult(r, o.dryRun)
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
		return Exit{Code: 1, Message: fmt.Sprintf("%d of %s refused", refused, term.Plural(len(objects), "object"))}
	case o.wait && !o.dryRun:
		return a.waitRunning(ctx, projects, o.timeout)
	}
	return nil
}

// applyAll applies objects on the terms of a request, in as many calls as it takes, and tells of each result in order.
func (a *app) applyAll(ctx context.Context, objects []proto.Message, terms *carav1.ApplyRequest, tell func(*carav1.ApplyResult)) error {
	c, err := a.applier()
	if err != nil {
		return err
	}
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
		resp, err := c.Apply(ctx, req)
		if err != nil {
			return err
		}
		for _, r := range resp.Results {
			tell(r)
		}
	}
	return nil
}

// printResult says what became of one object: done on standard output, refused on standard error.
func (a *app) printResult(r *carav1.ApplyResult, dryRun bool) {
	k := kind.Kind{Name: r.Kind}
	if r.Action == api.ApplyRefused {
		fmt.Fprintf(a.Err, "%s refused: %s\n", kind.Ref{Kind: k, Name: r.Name}, term.Line(r.Problem.GetDetail()))
		if len(r.Problem.GetErrors()) > 1 {
			a.printFields(r.Problem)
		}
		return
	}
	note := ""
	if dryRun {
		note = " (dry run)"
	}
	fmt.Fprintf(a.Out, "%s %s%s\n", kind.Ref{Kind: k, Name: r.Name}, term.Line(r.Action), note)
}
