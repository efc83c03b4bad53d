// Package cli is caractrl: what a person sees of the cluster, and what a person may do about it. It stands at the end
// of the straight line. One file a command; each is options, parse, run. The server decides, the command shows: colour
// and columns exist only here.
//
// What came from outside (names, messages, log lines) is stripped of control characters before it reaches a terminal.
// Results go to standard output, everything else to standard error, so that a pipe gets what it asked for.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/cli/term"
	"github.com/caravanserai/cara/internal/settings"
)

// Streams are where a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Exit is an error with the exit code that it stands for. An empty message prints nothing.
type Exit struct {
	Code    int
	Message string
}

func (e Exit) Error() string { return e.Message }

// exitInterrupted is what shells give a command that SIGINT ended.
const exitInterrupted = 130

// Run runs caractrl with its arguments and returns the exit code.
func Run(ctx context.Context, args []string, version string, streams Streams) int {
	return run(ctx, args, &app{Streams: streams, version: version, now: time.Now})
}

func run(ctx context.Context, args []string, a *app) int {
	defer a.close()
	root := newRoot(a) //nolint:contextcheck // each command is run with the context below
	root.SetArgs(args)
	a.args = args
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var exit Exit
	switch {
	case errors.As(err, &exit):
		if exit.Message != "" {
			fmt.Fprintln(a.Err, "error:", term.Clean(exit.Message))
		}
		return exit.Code
	case ctx.Err() != nil:
		return exitInterrupted
	}
	a.printError(err)
	switch cmd.Name() {
	case "diff":
		return exitNoDiff // 1 says that something differs
	case "exec":
		return exitNoExec // 1 may be the command's own
	}
	return 1
}

// app is what every command shares.
type app struct {
	Streams
	args      []string
	version   string
	server    string
	tokenFile string
	caFile    string
	context   string
	file      string
	now       func() time.Time
	conn      *grpc.ClientConn // made by the first dial
	reached   string           // the server that conn leads to
	cluster   string           // name of the context that was chosen; empty without one
}

func newRoot(a *app) *cobra.Command {
	root := group(&cobra.Command{
		Use:           "caractrl",
		Short:         "Show and steer a Cara cluster",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return settings.Load(cmd.Flags())
		},
	})
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// A misspelt command leaves its flags to the group above it, which knows none of them.
		if word := firstWord(cmd, a.args); cmd.HasSubCommands() && word != "" && known(cmd, []string{word}) != nil {
			return known(cmd, []string{word})
		}
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	root.Version = a.version
	root.SetVersionTemplate("caractrl {{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&a.server, "server", "", "address of cara-server, such as http://127.0.0.1:8080 (default: the current context's)")
	flags.StringVar(&a.tokenFile, "token-file", "", "file that holds the token")
	flags.StringVar(&a.caFile, "ca-file", "", "certificate authority to trust, in PEM: ca.crt of the server's data directory")
	flags.StringVar(&a.context, "context", "", "context to use instead of the current one")
	flags.StringVar(&a.file, "contexts-file", "", "file that holds the contexts")
	offer(root, "context", a.completeContexts)
	root.AddCommand(
		a.applyCommand(), a.getCommand(), a.describeCommand(), a.deleteCommand(), a.logsCommand(), a.diffCommand(),
		a.execCommand(), a.portForwardCommand(), a.topCommand(),
		a.createCommand(), a.versionCommand(), a.contextCommand(),
		a.retryCommand(), a.restartCommand(), a.extendCommand(), a.overrideCommand(),
		a.adoptCommand(), a.releaseCommand(), a.historyCommand(), a.rollbackCommand(), a.traceCommand(),
		a.reconcileCommand(), a.suspendCommand(), a.resumeCommand(), a.confirmCommand(),
		a.cordonCommand(), a.uncordonCommand(), a.drainCommand(), a.backupCommand(),
	)
	return root
}
