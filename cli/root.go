// Package cli is caractrl: what a person sees of the cluster, and what a person may do about it. It stands at the end
// of the straight line. One file a command; each is options, parse, run. The server decides, the command shows: colour
// and columns exist only here.
//
// What came from outside (names, messages, log lines) is stripped of control characters before it reaches a terminal.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/access"
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

// Run runs caractrl with its arguments and returns the exit code.
func Run(ctx context.Context, args []string, version string, streams Streams) int {
	root := newRoot(version, streams)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit Exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.Message != "" {
			fmt.Fprintln(streams.Err, "error:", clean(exit.Message))
		}
		return exit.Code
	case ctx.Err() != nil:
		return 130 // interrupted, as shells have it
	default:
		printError(streams.Err, err)
		return 1
	}
}

// printError shows an error as the server meant it: the detail, then each field.
func printError(w io.Writer, err error) {
	p := api.ProblemOf(err)
	if p == nil || p.Detail == "" {
		fmt.Fprintln(w, "error:", clean(err.Error()))
		return
	}
	fmt.Fprintln(w, "error:", clean(p.Detail))
	if len(p.Errors) > 1 {
		for _, f := range p.Errors {
			fmt.Fprintf(w, "  %s: %s\n", clean(f.Field), clean(f.Message))
		}
	}
}

// app is what every command shares.
type app struct {
	Streams
	version   string
	server    string
	tokenFile string
	context   string
	file      string
	now       func() time.Time
	conn      *grpc.ClientConn
}

func newRoot(version string, streams Streams) *cobra.Command {
	a := &app{Streams: streams, version: version, now: time.Now}
	root := &cobra.Command{
		Use:           "caractrl",
		Short:         "Show and steer a Cara cluster",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return settings.Load(cmd.Flags())
		},
		PersistentPostRunE: func(*cobra.Command, []string) error { return a.close() },
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	flags := root.PersistentFlags()
	flags.StringVar(&a.server, "server", "", "address of cara-server, such as http://127.0.0.1:8080 (default: the current context's)")
	flags.StringVar(&a.tokenFile, "token-file", "", "file that holds the token")
	flags.StringVar(&a.context, "context", "", "context to use instead of the current one")
	flags.StringVar(&a.file, "contexts-file", "", "file that holds the contexts")
	root.AddCommand(
		a.applyCommand(), a.getCommand(), a.describeCommand(), a.deleteCommand(), a.logsCommand(), a.diffCommand(),
		a.createCommand(), a.versionCommand(), a.contextCommand(),
		a.retryCommand(), a.restartCommand(), a.extendCommand(), a.overrideCommand(),
		a.reconcileCommand(), a.suspendCommand(), a.resumeCommand(), a.confirmCommand(),
		a.cordonCommand(), a.uncordonCommand(),
	)
	return root
}

func (a *app) close() error {
	if a.conn == nil {
		return nil
	}
	return a.conn.Close()
}

// dial connects to the server of the flags, or of the context. It is made once.
func (a *app) dial() (*grpc.ClientConn, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	target, err := a.target()
	if err != nil {
		return nil, err
	}
	a.conn, err = access.Dial(target)
	return a.conn, err
}

func (a *app) contextsFile() (string, error) {
	if a.file != "" {
		return a.file, nil
	}
	return access.File()
}

func (a *app) target() (access.Context, error) {
	if a.server != "" && a.tokenFile != "" {
		return access.Context{Server: a.server, TokenFile: a.tokenFile}, nil
	}
	file, err := a.contextsFile()
	if err != nil {
		return access.Context{}, err
	}
	contexts, err := access.Load(file)
	if err != nil {
		return access.Context{}, err
	}
	name := contexts.Current
	if a.context != "" {
		name = a.context
	}
	c, ok := contexts.Contexts[name]
	switch {
	case !ok && a.context != "":
		return c, fmt.Errorf("there is no context %q in %s; caractrl context lists them", a.context, file)
	case !ok && a.server == "":
		return c, fmt.Errorf("no server is known: start cara-server as this user, or give --server and --token-file (looked in %s)", file)
	}
	if a.server != "" {
		c.Server = a.server
	}
	if a.tokenFile != "" {
		c.TokenFile = a.tokenFile
	}
	return c, nil
}

// The services, one method each, so that a command says what it talks to.

func (a *app) projects() (carav1.ProjectServiceClient, error) {
	conn, err := a.dial()
	return carav1.NewProjectServiceClient(conn), err
}

func (a *app) nodes() (carav1.NodeServiceClient, error) {
	conn, err := a.dial()
	return carav1.NewNodeServiceClient(conn), err
}

func (a *app) sources() (carav1.SourceServiceClient, error) {
	conn, err := a.dial()
	return carav1.NewSourceServiceClient(conn), err
}

func (a *app) events() (carav1.EventServiceClient, error) {
	conn, err := a.dial()
	return carav1.NewEventServiceClient(conn), err
}

// terminal tells whether a stream is one, and colour may be used on it.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
