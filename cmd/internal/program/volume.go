package program

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/agent/confine"
	"github.com/caravanserai/cara/agent/volume"
)

// Hidden returns the commands that an agent runs in processes of their own.
func Hidden() []*cobra.Command {
	hidden := func(use, short string, run func(ctx context.Context, args []string) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Hidden: true, DisableFlagParsing: true, Short: short,
			PersistentPreRunE: func(*cobra.Command, []string) error { return nil }, // no settings
			RunE:              func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args) },
		}
	}
	return []*cobra.Command{
		hidden(volume.PipeCommand, "Connect rsync with the agent that started it", func(context.Context, []string) error { return volume.Pipe() }),
		hidden(confine.Command, "Run a program that can open only the given files", func(ctx context.Context, args []string) error {
			return confine.Exec(ctx, args, os.Environ())
		}),
	}
}
