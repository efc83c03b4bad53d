package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/kind"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (a *app) cordonCommand() *cobra.Command {
	return a.nodeVerb("cordon NODE", "Let a node get no new projects", "cordoned",
		func(s *carav1.NodeSpec) { s.Unschedulable = true })
}

func (a *app) uncordonCommand() *cobra.Command {
	return a.nodeVerb("uncordon NODE", "Let a node get projects again, and end a drain", "uncordoned",
		func(s *carav1.NodeSpec) { s.Unschedulable, s.Draining, s.DrainMaxParallel = false, false, 0 })
}

func (a *app) nodeVerb(use, short, done string, change func(*carav1.NodeSpec)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeNames(kind.Node()),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.nodes()
			if err != nil {
				return err
			}
			name := kind.Bare(kind.Node(), args[0])
			if err := changeNode(cmd.Context(), c, name, change); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "node/%s %s\n", name, done)
			return nil
		},
	}
}

// changeNode is a compare-and-swap; whoever wrote between the two calls is let go first, a few times.
func changeNode(ctx context.Context, c carav1.NodeServiceClient, name string, change func(*carav1.NodeSpec)) error {
	const attempts = 5
	for attempt := 1; ; attempt++ {
		have, err := c.GetNode(ctx, kind.ByName(name))
		if err != nil {
			return err
		}
		n := proto.CloneOf(have)
		if n.Spec == nil {
			n.Spec = &carav1.NodeSpec{}
		}
		change(n.Spec)
		_, err = c.PutNode(ctx, &carav1.PutNodeRequest{Node: n})
		if err == nil || !api.IsConflict(err) || attempt == attempts {
			return err
		}
	}
}
