package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// projectVerb is a command that does one thing to one project and says so.
func (a *app) projectVerb(use, short, done string, do func(context.Context, carav1.ProjectServiceClient, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeNames(kind.Project()),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.projects()
			if err != nil {
				return err
			}
			if err := do(cmd.Context(), c, kind.Bare(kind.Project(), args[0])); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "project/%s %s\n", kind.Bare(kind.Project(), args[0]), done)
			return nil
		},
	}
}

func (a *app) retryCommand() *cobra.Command {
	return a.projectVerb("retry PROJECT", "Try a Failed project, or an update that failed, again", "is tried again",
		func(ctx context.Context, c carav1.ProjectServiceClient, name string) error {
			_, err := c.RetryProject(ctx, &carav1.RetryProjectRequest{Name: name})
			return err
		})
}

func (a *app) restartCommand() *cobra.Command {
	var services []string
	cmd := &cobra.Command{
		Use: "restart PROJECT[/SERVICE]", Short: "Restart a project's containers", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := parseTarget(args[0], "")
			if err != nil {
				return err
			}
			if t.service != "" {
				services = append(services, t.service)
			}
			c, err := a.projects()
			if err != nil {
				return err
			}
			if _, err := c.RestartProject(cmd.Context(), &carav1.RestartProjectRequest{Name: t.project, Services: services}); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "project/%s is restarted\n", term.Line(t.project))
			return nil
		},
	}
	cmd.Flags().StringSliceVarP(&services, "service", "s", nil, "only these services")
	offer(cmd, "service", a.completeServiceFlag)
	return cmd
}

func (a *app) extendCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "extend PROJECT DURATION|TIME", Short: "Let a project live longer: by 24h, or until 2026-01-31T18:00:00Z",
		Args: cobra.ExactArgs(2), ValidArgsFunction: a.completeNames(kind.Project()),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &carav1.ExtendProjectRequest{Name: kind.Bare(kind.Project(), args[0]), Reason: reason}
			if d, err := time.ParseDuration(args[1]); err == nil {
				req.By = durationpb.New(d)
			} else if t, err := time.Parse(time.RFC3339, args[1]); err == nil {
				req.Until = timestamppb.New(t)
			} else {
				return fmt.Errorf("%q is neither a duration such as 24h nor a time such as 2026-01-31T18:00:00Z", args[1])
			}
			c, err := a.projects()
			if err != nil {
				return err
			}
			p, err := c.ExtendProject(cmd.Context(), req)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "project/%s expires %s\n", kind.Bare(kind.Project(), args[0]), term.Until(a.now(), kind.Expiry(p)).Text)
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why")
	return cmd
}
