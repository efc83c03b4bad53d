package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// sourceVerb is a command that does one thing to one source.
func (a *app) sourceVerb(use, short string, do func(context.Context, carav1.SourceServiceClient, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeNames(kind.Source()),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.sources()
			if err != nil {
				return err
			}
			return do(cmd.Context(), c, kind.Bare(kind.Source(), args[0]))
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
			i := strings.LastIndexByte(args[0], '@')
			if i < 0 {
				return fmt.Errorf("want SOURCE@REVISION, as the condition PruneBlocked names it, not %q", args[0])
			}
			name, rev := kind.Bare(kind.Source(), args[0][:i]), args[0][i+1:]
			c, err := a.sources()
			if err != nil {
				return err
			}
			if _, err := c.ConfirmSource(cmd.Context(), &carav1.ConfirmSourceRequest{Name: name, Revision: rev}); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "source/%s: the prune of %s is released\n", name, term.Clean(rev))
			return nil
		},
	}
}

func (a *app) reconcileCommand() *cobra.Command {
	var timeout time.Duration
	var noWait bool
	cmd := a.sourceVerb("reconcile SOURCE", "Look at a source now, and wait until what it says is applied",
		func(ctx context.Context, c carav1.SourceServiceClient, name string) error {
			resp, err := c.ReconcileSource(ctx, &carav1.GetRequest{Name: name})
			switch {
			case err != nil:
				return err
			case noWait:
				fmt.Fprintf(a.Out, "source/%s is asked to look\n", name)
				return nil
			}
			return a.waitHandled(ctx, c, name, resp.Token, timeout)
		})
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait")
	return cmd
}

// waitHandled waits until the source's status answers the token or a newer one, then tells how the pass ended.
func (a *app) waitHandled(ctx context.Context, c carav1.SourceServiceClient, name, token string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stream, err := c.WatchSources(ctx, &carav1.WatchObjectsRequest{})
	if err != nil {
		return err
	}
	for {
		e, err := stream.Recv()
		if err != nil {
			if waited(err) {
				return Exit{Code: exitTimeout, Message: fmt.Sprintf("source %q was not done after %s; caractrl describe source %s tells more", name, timeout, name)}
			}
			return err
		}
		s := e.GetObject()
		switch {
		case s.GetMetadata().GetName() != name:
			continue
		case e.Type == api.WatchDeleted:
			return fmt.Errorf("source %q was deleted meanwhile", name)
		case s.GetStatus().GetHandledToken() < token, settling(s):
			continue
		}
		if ready, message := kind.SourceState(s); ready.Text != api.StatusTrue {
			return fmt.Errorf("source %q: %s", name, term.Line(message))
		}
		fmt.Fprintf(a.Out, "source/%s is at %s\n", name, api.ShortRevision(s.GetStatus().GetAppliedRevision()))
		return nil
	}
}

// settling tells whether conditions are still those of the snapshot before. What a source holds and what became of it are
// written one after the other: where the asked-for snapshot is there the fetch has succeeded, and its own errors are
// what InvalidManifests is about.
func settling(s *carav1.Source) bool {
	snap, conditions := s.GetStatus().GetSnapshot(), s.GetStatus().GetConditions()
	if snap.GetToken() < s.GetStatus().GetHandledToken() {
		return false // the fetch for the newest answered request failed: the conditions are its own
	}
	invalid := snap.GetErrorCount() > 0
	reason := api.FindCondition(conditions, api.CondReady).GetReason()
	return api.IsTrue(conditions, api.CondFetchFailed) || reason == api.CondFetchFailed ||
		!invalid && (api.IsTrue(conditions, api.CondInvalidManifests) || reason == api.CondInvalidManifests)
}
