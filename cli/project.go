package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func newRetry(a *app) *cobra.Command {
	return newVerb(aboutProject(a), &cobra.Command{
		Use: "retry PROJECT", Short: "Try a Failed project, or an update that failed, again", Example: "  caractrl retry web",
	}, func(ctx context.Context, conn grpc.ClientConnInterface, name string) (string, error) {
		_, err := carav1.NewProjectServiceClient(conn).RetryProject(ctx, &carav1.RetryProjectRequest{Name: name})
		return "is tried again", err
	})
}

type restartOptions struct{ servicesOptions }

func newRestart(a *app) *cobra.Command {
	o := &restartOptions{servicesOptions{app: a}}
	cmd := command(&cobra.Command{
		Use: "restart PROJECT[/SERVICE]", Short: "Restart a project's containers", Args: cobra.ExactArgs(1), ValidArgsFunction: completion{a}.target,
		Example: "  caractrl restart shop\n  caractrl restart shop/web",
	}, o)
	o.flag(cmd)
	return cmd
}

func (o *restartOptions) run(ctx context.Context) error {
	if _, err := o.projects().RestartProject(ctx, &carav1.RestartProjectRequest{Name: o.project, Services: o.services}); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "project/%s is restarted\n", term.Line(o.project))
	return nil
}

type extendOptions struct {
	named
	req carav1.ExtendProjectRequest
}

func newExtend(a *app) *cobra.Command {
	o := &extendOptions{named: aboutProject(a)}
	cmd := o.one(&cobra.Command{
		Use: "extend PROJECT DURATION|TIME", Short: "Let a project live longer: by a duration, or until a time",
		Example: "  caractrl extend pr-42 24h\n  caractrl extend pr-42 2026-01-31T18:00:00Z --reason 'demo on Friday'",
		Args:    cobra.ExactArgs(2),
	}, o)
	cmd.Flags().StringVar(&o.req.Reason, "reason", "", "why")
	return cmd
}

func (o *extendOptions) parse(args []string) error {
	if d, err := time.ParseDuration(args[1]); err == nil {
		o.req.By = durationpb.New(d)
	} else if t, err := time.Parse(time.RFC3339, args[1]); err == nil {
		o.req.Until = timestamppb.New(t)
	} else {
		return fmt.Errorf("%q is neither a duration such as 24h nor a time such as 2026-01-31T18:00:00Z", args[1])
	}
	return o.named.parse(args)
}

func (o *extendOptions) run(ctx context.Context) error {
	o.req.Name = o.name
	p, err := o.projects().ExtendProject(ctx, &o.req)
	if err == nil {
		o.done("expires " + term.Until(o.now(), api.Expiry(p)).Text)
	}
	return err
}
