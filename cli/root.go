// Package cli implements caractrl, with which people and pipelines view and change a cluster. It is the last stage of a
// push: it shows the result. The server makes all decisions; a command sends requests and shows the answers. Each command
// is an options struct with parse and run (command.go).
//
// Text from outside (names, messages, log lines) is stripped of control characters before it reaches a terminal. Results go
// to standard output and everything else to standard error, so that a pipe receives only results.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/cli/edit"
	"github.com/caravanserai/cara/cli/explain"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Streams are the input and output of a command.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// exitInterrupted is the exit code that shells use for a command that SIGINT ended.
const exitInterrupted = 130

// Run runs caractrl with its arguments and returns the exit code.
func Run(ctx context.Context, args []string, version string, streams Streams) int {
	return run(ctx, args, &app{Streams: streams, version: version, now: time.Now})
}

func run(ctx context.Context, args []string, a *app) int {
	defer a.close()
	root := newRoot(a)
	root.SetArgs(args)
	a.args = args
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var exit term.Exit
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
		return exitNoDiff // 1 means that there is a difference
	case "exec":
		return exitNoExec // 1 may be the exit code of the executed command
	}
	return 1
}

// app is shared by all commands.
type app struct {
	Streams
	link
	args    []string
	version string
	now     func() time.Time
}

func newRoot(a *app) *cobra.Command {
	root := group(&cobra.Command{
		Use:           "caractrl",
		Short:         "See and change a Cara cluster",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return a.settle(cmd)
		},
	})
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// The parent group parses the flags of a misspelled command and does not know them.
		if word := firstWord(cmd, a.args); cmd.HasSubCommands() && word != "" && known(cmd, []string{word}) != nil {
			return known(cmd, []string{word})
		}
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	root.Version = a.version
	root.SetVersionTemplate("caractrl {{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringSliceVar(&a.servers, "server", nil, "address of cara-server, such as http://127.0.0.1:8080; with several servers, repeat it for each one, and the first that answers is used (default: the current context's)")
	flags.StringVar(&a.tokenFile, "token-file", "", "file with the token")
	flags.StringVar(&a.caFile, "ca-file", "", "file with the certificate authority in PEM: ca.crt in the server's data directory")
	flags.StringVar(&a.context, "context", "", "context to use instead of the current one")
	flags.StringVar(&a.file, "contexts-file", "", "file with the contexts")
	offer(root, "context", completion{a}.contexts)
	for i, task := range tasks() {
		id := strconv.Itoa(i)
		root.AddGroup(&cobra.Group{ID: id, Title: task.title})
		for _, create := range task.commands {
			cmd := create(a)
			cmd.GroupID = id
			root.AddCommand(cmd)
		}
		root.SetHelpCommandGroupID(id) // the last group: caractrl itself
		root.SetCompletionCommandGroupID(id)
	}
	return root
}

// Commands of packages of their own.

func newExplain(a *app) *cobra.Command { return explain.Command(a.Out) }

func newEdit(a *app) *cobra.Command {
	override := &overrideFlags{}
	cmd := edit.Command(edit.Cluster{In: a.In, Out: a.Out, Err: a.Err, Conn: a, Terms: override.terms})
	override.add(cmd)
	cmd.ValidArgsFunction = completion{a}.refs(edit.Can)
	return cmd
}

type task struct {
	title    string
	commands []func(*app) *cobra.Command
}

// tasks returns the commands grouped by task, in the order of the help.
func tasks() []task {
	return []task{
		{"See what there is:", []func(*app) *cobra.Command{newGet, newDescribe, newTrace, newHistory, newDiff, newPage, newExplain}},
		{"Change what runs:", []func(*app) *cobra.Command{newApply, newEdit, newConvert, newCreate, newDelete, newRecreate, newRestart, newRetry, newMove, newRestore, newExtend, newRollback}},
		{"Look into containers:", []func(*app) *cobra.Command{newLogs, newExec, newPortForward, newTop}},
		{"Work with git:", []func(*app) *cobra.Command{newReconcile, newWait, newSuspend, newResume, newConfirm, newOverride, newAdopt, newRelease}},
		{"Run nodes and the server:", []func(*app) *cobra.Command{newCordon, newUncordon, newDrain, newBackup}},
		{"Set up caractrl:", []func(*app) *cobra.Command{newLogin, newLogout, newWhoami, newContext, newVersion}},
	}
}

type versionOptions struct {
	noArgs
	client bool
}

func newVersion(a *app) *cobra.Command {
	o := &versionOptions{noArgs: noArgs{a}}
	cmd := command(&cobra.Command{
		Use: "version", Short: "Show the versions of caractrl and of the server", Args: cobra.NoArgs,
		Example: "  caractrl version\n  caractrl version --client",
	}, o)
	cmd.Flags().BoolVar(&o.client, "client", false, "only the version of caractrl")
	return cmd
}

func (o *versionOptions) run(ctx context.Context) error {
	fmt.Fprintf(o.Out, "caractrl:    %s\n", o.version)
	if o.client {
		return nil
	}
	info, err := carav1.NewInfoServiceClient(o.app).GetInfo(ctx, &emptypb.Empty{})
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "cara-server: %s\ncluster:     %s\nyou are:     %s\n", term.Clean(info.Version), term.Clean(info.ClusterId), term.Clean(info.Actor))
	return nil
}
