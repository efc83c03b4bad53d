package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	"github.com/caravanserai/cara/cli/progress"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func newCordon(a *app) *cobra.Command {
	return newVerb(aboutNode(a), &cobra.Command{
		Use: "cordon NODE", Short: "Keep new projects away from a node", Example: "  caractrl cordon n1",
	}, func(ctx context.Context, conn grpc.ClientConnInterface, name string) (string, error) {
		return "cordoned", changeNode(ctx, conn, name, func(s *carav1.NodeSpec) { s.Unschedulable = true })
	})
}

func newUncordon(a *app) *cobra.Command {
	return newVerb(aboutNode(a), &cobra.Command{
		Use: "uncordon NODE", Short: "Let a node get projects again, and end a drain", Example: "  caractrl uncordon n1",
	}, func(ctx context.Context, conn grpc.ClientConnInterface, name string) (string, error) {
		return "uncordoned", changeNode(ctx, conn, name, func(s *carav1.NodeSpec) {
			s.Unschedulable, s.Draining, s.DrainMaxParallel, s.DrainMoveData = false, false, 0, false
		})
	})
}

// changeNode changes a node's spec by compare-and-swap. On a conflict it retries a few times.
func changeNode(ctx context.Context, conn grpc.ClientConnInterface, name string, change func(*carav1.NodeSpec)) error {
	const attempts = 5
	c := carav1.NewNodeServiceClient(conn)
	for attempt := 1; ; attempt++ {
		have, err := c.GetNode(ctx, kind.ByName(name))
		if err != nil {
			return err
		}
		n := proto.CloneOf(have)
		n.Spec = cmp.Or(n.Spec, &carav1.NodeSpec{})
		change(n.Spec)
		_, err = c.PutNode(ctx, &carav1.PutNodeRequest{Node: n})
		if err == nil || !api.IsConflict(err) || attempt == attempts {
			return err
		}
	}
}

type drainOptions struct {
	named
	timeout  time.Duration
	parallel int32
	moveData bool
}

func newDrain(a *app) *cobra.Command {
	o := &drainOptions{named: aboutNode(a)}
	cmd := o.one(&cobra.Command{
		Use: "drain NODE", Short: "Move a node's projects to other nodes, and wait until all run there",
		Long: "Move a node's projects to other nodes, and keep new ones away. A project moves after the one before it runs\n" +
			"elsewhere, or has failed there; a project that fits on no other node stays, and says why.\n" +
			"A project with Managed volumes stays with its data, unless --move-data is given. Then its data is copied while it\n" +
			"runs, as by caractrl move.\n\n" +
			"The server does the work: when this command ends before the drain does, the drain goes on. Run it again to\n" +
			"watch it again; caractrl uncordon NODE ends it, and what has moved stays where it is.\n\n" +
			"Exit codes: 0 nothing runs on the node any more, 4 --timeout was over, 1 anything else.",
		Example: "  caractrl drain n1\n  caractrl drain n1 --move-data --max-parallel 4 --timeout 30m",
	}, o)
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "how long to wait; 0 is as long as it takes")
	cmd.Flags().Int32Var(&o.parallel, "max-parallel", 1, "how many projects may move at a time")
	cmd.Flags().BoolVar(&o.moveData, "move-data", false, "move projects with Managed volumes, too, with their data")
	return cmd
}

func (o *drainOptions) parse(args []string) error {
	if o.parallel < 1 || o.timeout < 0 {
		return errors.New("--max-parallel must be at least 1, and --timeout not negative; see caractrl drain --help")
	}
	return o.named.parse(args)
}

func (o *drainOptions) run(ctx context.Context) error {
	if err := o.nameCluster(); err != nil {
		return err
	}
	err := changeNode(ctx, o.app, o.name, func(s *carav1.NodeSpec) {
		s.Unschedulable, s.Draining, s.DrainMaxParallel, s.DrainMoveData = true, true, o.parallel, o.moveData
	})
	if err != nil {
		return err
	}
	return o.wait(ctx)
}

// wait follows a drain to its end. If the connection to the server is lost, it waits for the server, which then continues
// the drain.
func (o *drainOptions) wait(ctx context.Context) error {
	d := progress.NewDrain(o.name)
	err := o.untilEnded(ctx, o.timeout, followed{
		watch: func(ctx context.Context) error { return o.follow(ctx, d) }, remains: d.Remains, lost: d.Lost,
	})
	if err != nil {
		return err
	}
	for _, note := range d.Notes() {
		fmt.Fprintln(o.Err, note)
	}
	o.done("drained")
	return nil
}

// follow shows the progress until the node is drained (nil) or the watch ends.
func (o *drainOptions) follow(ctx context.Context, d *progress.Drain) error {
	stream, err := carav1.NewWatchServiceClient(o.app).Watch(ctx, &carav1.WatchRequest{Kinds: []string{api.KindNode, api.KindProject}})
	if err != nil {
		return err
	}
	d.Begin()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		steps, err := d.Take(m)
		for _, step := range steps {
			fmt.Fprintln(o.Err, step)
		}
		if err != nil || d.Drained {
			return err
		}
	}
}
