package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// projectVerb is a command that does one thing to one project and says so.
func (a *app) projectVerb(use, short, done string, do func(context.Context, carav1.ProjectServiceClient, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: a.complete(projectKind()),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.projects()
			if err != nil {
				return err
			}
			if err := do(cmd.Context(), c, bare(args[0])); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "project/%s %s\n", bare(args[0]), done)
			return nil
		},
	}
}

func (a *app) retryCommand() *cobra.Command {
	return a.projectVerb("retry PROJECT", "Try a Failed project again", "is tried again",
		func(ctx context.Context, c carav1.ProjectServiceClient, name string) error {
			_, err := c.RetryProject(ctx, &carav1.RetryProjectRequest{Name: name})
			return err
		})
}

func (a *app) restartCommand() *cobra.Command {
	var services []string
	cmd := a.projectVerb("restart PROJECT", "Restart a project's containers", "is restarted",
		func(ctx context.Context, c carav1.ProjectServiceClient, name string) error {
			_, err := c.RestartProject(ctx, &carav1.RestartProjectRequest{Name: name, Services: services})
			return err
		})
	cmd.Flags().StringSliceVarP(&services, "service", "s", nil, "only these services")
	return cmd
}

func (a *app) extendCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "extend PROJECT DURATION|TIME", Short: "Let a project live longer: by 24h, or until 2026-01-31T18:00:00Z",
		Args: cobra.ExactArgs(2), ValidArgsFunction: a.complete(projectKind()),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &carav1.ExtendProjectRequest{Name: bare(args[0]), Reason: reason}
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
			fmt.Fprintf(a.Out, "project/%s expires %s\n", bare(args[0]), until(a.now(), expiry(p)))
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why")
	return cmd
}

func (a *app) overrideCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "override", Short: "End a decision against git", Args: cobra.NoArgs}
	cmd.AddCommand(a.projectVerb("clear PROJECT", "End the override of a project: git wins again", "has no override",
		func(ctx context.Context, c carav1.ProjectServiceClient, name string) error {
			_, err := c.OverrideProject(ctx, &carav1.OverrideProjectRequest{Name: name, Clear: true})
			return err
		}))
	return cmd
}

// sourceVerb is a command that does one thing to one source.
func (a *app) sourceVerb(use, short string, do func(context.Context, carav1.SourceServiceClient, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: a.complete(sourceKind()),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.sources()
			if err != nil {
				return err
			}
			return do(cmd.Context(), c, bare(args[0]))
		},
	}
}

func (a *app) suspendCommand() *cobra.Command {
	return a.sourceVerb("suspend SOURCE", "Stop fetching, applying and pruning", func(ctx context.Context, c carav1.SourceServiceClient, name string) error {
		if _, err := c.SuspendSource(ctx, &carav1.GetRequest{Name: name}); err != nil {
			return err
		}
		fmt.Fprintf(a.Out, "source/%s suspended\n", name)
		return nil
	})
}

func (a *app) resumeCommand() *cobra.Command {
	return a.sourceVerb("resume SOURCE", "End a suspension", func(ctx context.Context, c carav1.SourceServiceClient, name string) error {
		if _, err := c.ResumeSource(ctx, &carav1.GetRequest{Name: name}); err != nil {
			return err
		}
		fmt.Fprintf(a.Out, "source/%s resumed\n", name)
		return nil
	})
}

func (a *app) confirmCommand() *cobra.Command {
	return &cobra.Command{
		Use: "confirm SOURCE@REVISION", Short: "Release the blocked prune of exactly this revision", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, rev, ok := cutLast(args[0], '@')
			if !ok {
				return fmt.Errorf("want SOURCE@REVISION, as the condition PruneBlocked names it, not %q", args[0])
			}
			c, err := a.sources()
			if err != nil {
				return err
			}
			if _, err := c.ConfirmSource(cmd.Context(), &carav1.ConfirmSourceRequest{Name: bare(name), Revision: rev}); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "source/%s: the prune of %s is released\n", bare(name), rev)
			return nil
		},
	}
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == sep {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func (a *app) reconcileCommand() *cobra.Command {
	var timeout time.Duration
	var noWait bool
	cmd := a.sourceVerb("reconcile SOURCE", "Look at a source now, and wait until what it says is applied",
		func(ctx context.Context, c carav1.SourceServiceClient, name string) error {
			resp, err := c.ReconcileSource(ctx, &carav1.GetRequest{Name: name})
			if err != nil || noWait {
				return err
			}
			return a.waitHandled(ctx, c, name, resp.Token, timeout)
		})
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait")
	return cmd
}

// waitHandled waits until the source's status echoes the token, then tells how the pass ended.
func (a *app) waitHandled(ctx context.Context, c carav1.SourceServiceClient, name, token string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errWaited)
	defer cancel()
	stream, err := c.WatchSources(ctx, &carav1.WatchObjectsRequest{})
	if err != nil {
		return err
	}
	for {
		e, err := stream.Recv()
		if err != nil {
			if errors.Is(context.Cause(ctx), errWaited) {
				return Exit{Code: exitTimeout, Message: fmt.Sprintf("source %q was not done after %s; caractrl describe source %s tells more", name, timeout, name)}
			}
			return err
		}
		s := e.GetObject()
		if s.GetMetadata().GetName() != name || s.GetStatus().GetHandledToken() != token {
			continue
		}
		ready, _, message := sourceState(s)
		if ready != api.StatusTrue {
			return Exit{Code: 1, Message: fmt.Sprintf("source %q: %s", name, line(message))}
		}
		fmt.Fprintf(a.Out, "source/%s is at %s\n", name, revision(s.GetStatus().GetAppliedRevision()))
		return nil
	}
}

func (a *app) cordonCommand() *cobra.Command {
	return a.nodeVerb("cordon NODE", "Let a node get no new projects", "cordoned", true)
}

func (a *app) uncordonCommand() *cobra.Command {
	return a.nodeVerb("uncordon NODE", "Let a node get projects again", "uncordoned", false)
}

func (a *app) nodeVerb(use, short, done string, unschedulable bool) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: a.complete(nodeKind()),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.nodes()
			if err != nil {
				return err
			}
			n, err := c.GetNode(cmd.Context(), &carav1.GetRequest{Name: bare(args[0])})
			if err != nil {
				return err
			}
			n = proto.CloneOf(n)
			if n.Spec == nil {
				n.Spec = &carav1.NodeSpec{}
			}
			n.Spec.Unschedulable = unschedulable
			if _, err := c.PutNode(cmd.Context(), &carav1.PutNodeRequest{Node: n}); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "node/%s %s\n", bare(args[0]), done)
			return nil
		},
	}
}
