package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func newSuspend(a *app) *cobra.Command {
	return newVerb(aboutSource(a), &cobra.Command{
		Use: "suspend SOURCE", Short: "Stop fetching, applying and pruning", Example: "  caractrl suspend platform",
	}, func(ctx context.Context, conn grpc.ClientConnInterface, name string) (string, error) {
		_, err := carav1.NewSourceServiceClient(conn).SuspendSource(ctx, kind.ByName(name))
		return "suspended", err
	})
}

func newResume(a *app) *cobra.Command {
	return newVerb(aboutSource(a), &cobra.Command{
		Use: "resume SOURCE", Short: "End a suspension", Example: "  caractrl resume platform",
	}, func(ctx context.Context, conn grpc.ClientConnInterface, name string) (string, error) {
		_, err := carav1.NewSourceServiceClient(conn).ResumeSource(ctx, kind.ByName(name))
		return "resumed", err
	})
}

type confirmOptions struct {
	*app
	source, revision string
}

func newConfirm(a *app) *cobra.Command {
	return command(&cobra.Command{
		Use: "confirm SOURCE@REVISION", Short: "Release the blocked prune of exactly this revision", Args: cobra.ExactArgs(1),
		Example: "  caractrl confirm platform@4f2c91d",
	}, &confirmOptions{app: a})
}

func (o *confirmOptions) parse(args []string) error {
	i := strings.LastIndexByte(args[0], '@')
	if i < 0 {
		return fmt.Errorf("want SOURCE@REVISION, as the condition PruneBlocked names it, not %q", args[0])
	}
	o.source, o.revision = kind.Bare(kind.Source(), args[0][:i]), args[0][i+1:]
	return nil
}

func (o *confirmOptions) run(ctx context.Context) error {
	c, err := o.sources()
	if err != nil {
		return err
	}
	if _, err := c.ConfirmSource(ctx, &carav1.ConfirmSourceRequest{Name: o.source, Revision: o.revision}); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "source/%s: the prune of %s is released\n", term.Line(o.source), term.Clean(o.revision))
	return nil
}

type reconcileOptions struct {
	named
	timeout time.Duration
	noWait  bool
}

func newReconcile(a *app) *cobra.Command {
	o := &reconcileOptions{named: aboutSource(a)}
	cmd := o.one(&cobra.Command{
		Use: "reconcile SOURCE", Short: "Check a source now, and wait until what it declares is applied",
		Example: "  caractrl reconcile platform\n  caractrl reconcile platform --timeout 5m",
	}, o)
	cmd.Flags().DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait")
	cmd.Flags().BoolVar(&o.noWait, "no-wait", false, "do not wait")
	return cmd
}

func (o *reconcileOptions) run(ctx context.Context) error {
	c, err := o.sources()
	if err != nil {
		return err
	}
	resp, err := c.ReconcileSource(ctx, kind.ByName(o.name))
	switch {
	case err != nil:
		return err
	case o.noWait:
		o.done("is being checked")
		return nil
	}
	return o.wait(ctx, c, resp.Token)
}

// wait waits until the source's status answers the token or a newer one, and prints the result of the reconciliation.
func (o *reconcileOptions) wait(ctx context.Context, c carav1.SourceServiceClient, token string) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	stream, err := c.WatchSources(ctx, &carav1.WatchObjectsRequest{})
	if err != nil {
		return err
	}
	for {
		e, err := stream.Recv()
		if err != nil {
			if timedOut(err) {
				return Exit{Code: exitTimeout, Message: fmt.Sprintf("source %q was not done after %s; caractrl describe source %s tells more", o.name, o.timeout, o.name)}
			}
			return err
		}
		s := e.GetObject()
		switch {
		case s.GetMetadata().GetName() != o.name:
			continue
		case e.Type == api.WatchDeleted:
			return fmt.Errorf("source %q was deleted meanwhile", o.name)
		case s.GetStatus().GetHandledToken() < token, settling(s):
			continue
		}
		if ready, message := kind.SourceState(s); ready.Text != api.StatusTrue {
			return fmt.Errorf("source %q: %s", o.name, term.Line(message))
		}
		fmt.Fprintf(o.Out, "source/%s is at %s\n", o.name, api.ShortRevision(s.GetStatus().GetAppliedRevision()))
		return nil
	}
}

// settling reports whether the conditions still describe the previous snapshot. A source's snapshot and conditions are
// written one after the other. If the requested snapshot exists, its fetch has succeeded, and InvalidManifests must be
// about its errors.
func settling(s *carav1.Source) bool {
	snap, conditions := s.GetStatus().GetSnapshot(), s.GetStatus().GetConditions()
	if snap.GetToken() < s.GetStatus().GetHandledToken() {
		return false // the fetch for the newest answered request failed: the conditions describe it
	}
	invalid := snap.GetErrorCount() > 0
	reason := api.FindCondition(conditions, api.CondReady).GetReason()
	return api.IsTrue(conditions, api.CondFetchFailed) || reason == api.CondFetchFailed ||
		!invalid && (api.IsTrue(conditions, api.CondInvalidManifests) || reason == api.CondInvalidManifests)
}
