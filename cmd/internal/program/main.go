package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/agent/confine"
	"github.com/caravanserai/cara/agent/volume"
	"github.com/caravanserai/cara/internal/settings"
)

// LogFlags are the common log flags of the programs.
type LogFlags struct{ level, format string }

// Add adds the flags to a command.
func (l *LogFlags) Add(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&l.level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&l.format, "log-format", "text", "text or json")
	f.String("config", "", "YAML file with settings; each key is the name of a flag")
}

// Quiet logs only warnings and errors, for a program that prints its own lines.
func (l *LogFlags) Quiet() { l.level = "warn" }

// Logger creates the program's logger.
func (l *LogFlags) Logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", l.level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch strings.ToLower(l.format) {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", l.format)
}

// Main runs a command until it ends or until SIGINT or SIGTERM cancel it, and exits. A second signal ends the process
// immediately.
func Main(cmd *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return settings.Load(cmd.Flags()) }
	err := cmd.ExecuteContext(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

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
