package cli

import (
	"context"
	"errors"
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
	if _, err := o.sources().ConfirmSource(ctx, &carav1.ConfirmSourceRequest{Name: o.source, Revision: o.revision}); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "source/%s: the prune of %s is released\n", term.Line(o.source), term.Clean(o.revision))
	return nil
}

type reconcileOptions struct {
	named
	timeout time.Duration
	noWait  bool
	running bool   // --wait
	project string // the only project to wait for
}

func newReconcile(a *app) *cobra.Command {
	o := &reconcileOptions{named: aboutSource(a)}
	cmd := o.one(&cobra.Command{
		Use: "reconcile SOURCE", Short: "Check a source now, and wait until what it declares is applied",
		Long: "Check a source now, and wait until what it declares is applied. With --wait, wait also until its projects run at\n" +
			"this revision. With --project, only that project matters: errors of others are ignored.\n\n" +
			"Exit codes with --wait: 0 the projects run, 2 no node fits, 3 a project failed or is refused, 4 --timeout was over,\n1 anything else.",
		Example: "  caractrl reconcile platform\n  caractrl reconcile platform --wait --timeout 5m\n  caractrl reconcile previews --wait --project pr-42",
	}, o)
	f := cmd.Flags()
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait (1m, with --wait 5m)")
	f.BoolVar(&o.noWait, "no-wait", false, "do not wait")
	f.BoolVar(&o.running, "wait", false, "wait until the projects run")
	f.StringVar(&o.project, "project", "", "with --wait: wait for this project only")
	offer(cmd, "project", completion{a}.flag(kind.Project()))
	cmd.MarkFlagsMutuallyExclusive("wait", "no-wait")
	return cmd
}

func (o *reconcileOptions) parse(args []string) error {
	if o.project = kind.Bare(kind.Project(), o.project); o.project != "" && !o.running {
		return errors.New("--project says which project --wait waits for: add --wait")
	}
	if o.timeout == 0 {
		o.timeout = time.Minute
		if o.running {
			o.timeout = 5 * time.Minute
		}
	}
	if err := checkTimeout(o.timeout); err != nil {
		return err
	}
	return o.named.parse(args)
}

func (o *reconcileOptions) run(ctx context.Context) error {
	c := o.sources()
	end := time.Now().Add(o.timeout)
	resp, err := c.ReconcileSource(ctx, kind.ByName(o.name))
	switch {
	case err != nil:
		return err
	case o.noWait:
		o.done("is being checked")
		return nil
	}
	s, err := o.wait(ctx, c, resp.Token)
	if err != nil {
		return err
	}
	ready, message := kind.SourceState(s)
	switch {
	case o.project != "":
	case ready.Text != api.StatusTrue:
		return fmt.Errorf("source %q: %s", o.name, term.Line(message))
	default:
		fmt.Fprintf(o.Out, "source/%s is at %s\n", o.name, api.ShortRevision(s.GetStatus().GetAppliedRevision()))
	}
	if !o.running {
		return nil
	}
	names, err := o.claimed(ctx, c, s)
	if err != nil {
		return err
	}
	w := newWaiting(names)
	w.urls = true
	return o.await(ctx, w, max(time.Second, time.Until(end).Round(time.Second)))
}

// wait waits until the source's status answers the token or a newer one, and returns the source.
func (o *reconcileOptions) wait(ctx context.Context, c carav1.SourceServiceClient, token string) (*carav1.Source, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	stream, err := c.WatchSources(ctx, &carav1.WatchObjectsRequest{})
	if err != nil {
		return nil, err
	}
	for {
		e, err := stream.Recv()
		if err != nil {
			if timedOut(err) {
				return nil, term.Exit{Code: term.ExitTimeout, Message: fmt.Sprintf("source %q was not done after %s; caractrl describe source %s tells more", o.name, o.timeout, o.name)}
			}
			return nil, err
		}
		s := e.GetObject()
		switch {
		case s.GetMetadata().GetName() != o.name:
			continue
		case e.Type == api.WatchDeleted:
			return nil, fmt.Errorf("source %q was deleted meanwhile", o.name)
		case s.GetStatus().GetHandledToken() < token, settling(s):
			continue
		}
		return s, nil
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
