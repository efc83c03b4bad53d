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

// exitNoExec is the exit code if the command could not be run, or its result is unknown. Docker uses the same code.
const exitNoExec = 125

type execOptions struct {
	serviceOptions
	command         []string
	stdin, tty      bool
	user, directory string
}

func newExec(a *app) *cobra.Command {
	o := &execOptions{serviceOptions: serviceOptions{app: a}}
	cmd := command(&cobra.Command{
		Use: "exec PROJECT[/SERVICE] -- COMMAND [ARG...]", Short: "Run a command in a container of a project",
		Long: "Run a command in a container of a project. No shell interprets it; to use one, run it: sh -c '...'.\n\n" +
			"The exit code is the command's own. 126 and 127 mean that the command cannot be run or does not exist; 125 means that\n" +
			"its end is not known, because the server, the node or the project was not there.",
		Example: "  caractrl exec -it project/shop -s web -- sh\n  caractrl exec -i shop -s db -- psql < schema.sql",
		Args:    cobra.MinimumNArgs(2),
	}, o)
	o.flag(cmd, "the service, if the project has several")
	f := cmd.Flags()
	f.BoolVarP(&o.stdin, "stdin", "i", false, "pass standard input to the command")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal; its standard error then comes with its standard output")
	f.StringVarP(&o.user, "user", "u", "", "run as this user (default: the container's)")
	f.StringVarP(&o.directory, "workdir", "w", "", "run in this directory (default: the container's)")
	return cmd
}

func (o *execOptions) parse(args []string) error {
	o.command = args[1:]
	return o.serviceOptions.parse(args)
}

func (o *execOptions) run(ctx context.Context) error {
	start := &carav1.ExecStart{
		Name: o.project, Service: o.service, Command: o.command, Stdin: o.stdin, Tty: o.tty, User: o.user, WorkingDir: o.directory,
	}
	var terminal *term.Screen
	if o.tty {
		var err error
		if terminal, err = term.OpenScreen(o.In, o.Out, o.stdin); err != nil {
			return err
		}
		defer terminal.Restore()
		start.Size = terminal.Size()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := o.projects().Exec(ctx)
	if err != nil {
		return err
	}
	in := &execSender{stream: stream}
	// If the send fails the stream has ended; receive returns the reason.
	_ = in.send(&carav1.ExecRequest{Message: &carav1.ExecRequest_Start{Start: start}})
	if o.stdin {
		go in.copy(o.In) // ends with the input; the input of a terminal does not end, so nothing waits for this
	}
	if terminal != nil {
		var resizing sync.WaitGroup
		defer resizing.Wait()
		defer cancel()
		resizing.Go(func() { terminal.Resizes(ctx, in.resize) })
	}
	code, err := o.receive(stream)
	if err == nil && code != 0 {
		return term.Exit{Code: int(code)}
	}
	return err
}

func (s *execSender) resize(size *carav1.TerminalSize) {
	_ = s.send(&carav1.ExecRequest{Message: &carav1.ExecRequest_Resize{Resize: size}}) // an ended stream has its own error
}

// receive writes the command's output unchanged, since it may be binary, and returns the exit code.
func (o *execOptions) receive(stream carav1.ProjectService_ExecClient) (code int32, err error) {
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
			_, err = o.Out.Write(m.Stdout)
		case *carav1.ExecResponse_Stderr:
			_, err = o.Err.Write(m.Stderr)
		case *carav1.ExecResponse_ExitCode:
			return m.ExitCode, nil
		}
		if err != nil {
			return 0, fmt.Errorf("write output: %w", err)
		}
	}
}

// inputChunk is the maximum number of bytes that are sent at a time.
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

// copy sends input until it or the stream ends.
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
