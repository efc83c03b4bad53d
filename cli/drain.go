package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (a *app) drainCommand() *cobra.Command {
	var timeout time.Duration
	var parallel int32
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Move a node's projects elsewhere, wait until all run there, and let it get no new ones",
		Long: "Move a node's projects elsewhere, and let it get no new ones. A project leaves once the one before it runs\n" +
			"elsewhere, or has failed there; one that fits nowhere else stays, and says why.\n\n" +
			"The server does the work: when this command ends before the drain does, the drain goes on. Run it again to\n" +
			"watch it again; caractrl uncordon NODE ends it, and what has moved stays where it is.\n\n" +
			"Exit codes: 0 nothing runs on the node any more, 4 --timeout was over, 1 anything else.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeNames(kind.Node()),
		RunE: func(cmd *cobra.Command, args []string) error {
			if parallel < 1 || timeout < 0 {
				return errors.New("--max-parallel must be at least 1, and --timeout not negative; see caractrl drain --help")
			}
			if err := a.nameCluster(); err != nil {
				return err
			}
			c, err := a.nodes()
			if err != nil {
				return err
			}
			name := kind.Bare(kind.Node(), args[0])
			err = changeNode(cmd.Context(), c, name, func(s *carav1.NodeSpec) {
				s.Unschedulable, s.Draining, s.DrainMaxParallel = true, true, parallel
			})
			if err != nil {
				return err
			}
			return a.waitDrained(cmd.Context(), name, timeout)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long to wait; 0 is as long as it takes")
	cmd.Flags().Int32Var(&parallel, "max-parallel", 1, "how many projects may be on their way at a time")
	return cmd
}

// waitDrained follows a drain to its end. A server that goes away meanwhile is waited for: it goes on with the drain
// when it is back.
func (a *app) waitDrained(ctx context.Context, node string, timeout time.Duration) error {
	interrupted := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	d := newDeparture(node)
	for {
		err := a.followDrain(ctx, d)
		switch {
		case err == nil:
			for _, note := range d.notes() {
				fmt.Fprintln(a.Err, note)
			}
			fmt.Fprintf(a.Out, "node/%s drained\n", node)
			return nil
		case interrupted.Err() != nil:
			return Exit{Code: exitInterrupted, Message: "interrupted: " + d.remains()}
		case ctx.Err() != nil, timeout > 0 && waited(err):
			return Exit{Code: exitTimeout, Message: fmt.Sprintf("after %s %s", timeout, d.remains())}
		case api.Code(err) != codes.Unavailable:
			return err
		}
		if cause, _ := unreachable(err); d.once("server", "gone") {
			fmt.Fprintln(a.Err, "the connection to the server is lost: waiting for it", term.Line(cause))
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// followDrain shows what happens until the node is drained (nil) or the watch ends.
func (a *app) followDrain(ctx context.Context, d *departure) error {
	conn, err := a.dial()
	if err != nil {
		return err
	}
	stream, err := carav1.NewWatchServiceClient(conn).Watch(ctx, &carav1.WatchRequest{Kinds: []string{api.KindNode, api.KindProject}})
	if err != nil {
		return err
	}
	d.begin()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		steps, err := d.take(m)
		for _, step := range steps {
			fmt.Fprintln(a.Err, step)
		}
		if err != nil || d.drained {
			return err
		}
	}
}
