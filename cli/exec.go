package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/spf13/cobra"

	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// exitNoExec is the exit code where the command could not be run at all, or its end is not known; Docker's is the same.
const exitNoExec = 125

type execOptions struct {
	target
	command         []string
	stdin, tty      bool
	user, directory string
}

func (a *app) execCommand() *cobra.Command {
	o := execOptions{}
	var service string
	cmd := &cobra.Command{
		Use: "exec PROJECT[/SERVICE] -- COMMAND [ARG...]", Short: "Run a command in a container of a project",
		Long: "Run a command in a container of a project. No shell reads it: for one, run one.\n\n" +
			"The exit code is the command's own; 126 and 127 are for a command that cannot be run or is not there, 125 for one whose\n" +
			"end is not known, because the server, the node or the project was not there.",
		Example:           "  caractrl exec -it project/shop -s web -- sh\n  caractrl exec -i shop -s db -- psql < schema.sql",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeTarget,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.target, err = parseTarget(args[0], service); err != nil {
				return err
			}
			o.command = args[1:]
			return a.exec(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	a.serviceFlag(cmd, &service, "the service, where the project has several")
	f.BoolVarP(&o.stdin, "stdin", "i", false, "pass standard input on")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal; standard error then comes with standard output")
	f.StringVarP(&o.user, "user", "u", "", "run as this user (default: the container's)")
	f.StringVarP(&o.directory, "workdir", "w", "", "run in this directory (default: the container's)")
	return cmd
}

func (a *app) exec(ctx context.Context, o execOptions) error {
	c, err := a.projects()
	if err != nil {
		return err
	}
	start := &carav1.ExecStart{
		Name: o.project, Service: o.service, Command: o.command, Stdin: o.stdin, Tty: o.tty, User: o.user, WorkingDir: o.directory,
	}
	var terminal *term.Screen
	if o.tty {
		if terminal, err = term.OpenScreen(a.In, a.Out, o.stdin); err != nil {
			return err
		}
		defer terminal.Restore()
		start.Size = terminal.Size()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Exec(ctx)
	if err != nil {
		return err
	}
	in := &execSender{stream: stream}
	// A failed send says only that the stream has ended; receive says why.
	_ = in.send(&carav1.ExecRequest{Message: &carav1.ExecRequest_Start{Start: start}})
	if o.stdin {
		go in.copy(a.In) // ends with the input; a terminal's has no end, and the program ends without waiting for it
	}
	if terminal != nil {
		var resizing sync.WaitGroup
		defer resizing.Wait()
		defer cancel()
		resizing.Go(func() {
			terminal.Resizes(ctx, func(size *carav1.TerminalSize) {
				_ = in.send(&carav1.ExecRequest{Message: &carav1.ExecRequest_Resize{Resize: size}})
			})
		})
	}
	code, err := a.receive(stream)
	if err == nil && code != 0 {
		return Exit{Code: int(code)}
	}
	return err
}

// receive writes what the command says, as it is: it may be anything. It returns the command's exit code.
func (a *app) receive(stream carav1.ProjectService_ExecClient) (code int32, err error) {
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return 0, errors.New("the stream ended before the command's exit code came")
		}
		if err != nil {
			return 0, err
		}
		switch m := msg.GetMessage().(type) {
		case *carav1.ExecResponse_Stdout:
			_, err = a.Out.Write(m.Stdout)
		case *carav1.ExecResponse_Stderr:
			_, err = a.Err.Write(m.Stderr)
		case *carav1.ExecResponse_ExitCode:
			return m.ExitCode, nil
		}
		if err != nil {
			return 0, fmt.Errorf("write output: %w", err)
		}
	}
}

// inputChunk is the most that is sent at a time.
const inputChunk = 32 << 10

// execSender sends to a command; gRPC allows one sender at a time.
type execSender struct {
	mu     sync.Mutex
	stream carav1.ProjectService_ExecClient
}

func (s *execSender) send(m *carav1.ExecRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(m)
}

// copy sends input until its end, or that of the stream.
func (s *execSender) copy(in io.Reader) {
	for {
		data := make([]byte, inputChunk)
		n, err := in.Read(data)
		if n > 0 && s.send(&carav1.ExecRequest{Message: &carav1.ExecRequest_Stdin{Stdin: data[:n]}}) != nil {
			return
		}
		if err != nil {
			_ = s.send(&carav1.ExecRequest{Message: &carav1.ExecRequest_StdinClosed{StdinClosed: true}})
			return
		}
	}
}
