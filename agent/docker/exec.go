package docker

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/caravanserai/cara/agent/engine"
)

const (
	// outputChunk is the largest chunk of output.
	outputChunk = 32 << 10
	// noDetach replaces the keys that detach a terminal from the engine (Ctrl-P Ctrl-Q, which delay Ctrl-P until the next key)
	// with a sequence that nobody types.
	noDetach = "ctrl-^,ctrl-@,ctrl-^,ctrl-@,ctrl-^,ctrl-@,ctrl-^,ctrl-@"

	resizeTries  = 20
	resizePause  = 25 * time.Millisecond // until a new process has a terminal
	exitPauseMax = time.Second
)

// process is a command on one hijacked connection. Only closing the connection ends its reads and writes.
type process struct {
	engine    *connection
	docker    *client.Client
	id        string // of the exec
	container string
	tty       bool
	stream    types.HijackedResponse
	ended     bool // Wait saw the end of the command
}

// Start implements engine.Streams.
func (e *streams) Start(ctx context.Context, id string, command engine.Command) (engine.Process, error) {
	docker, err := e.api(ctx)
	if err != nil {
		return nil, err
	}
	options := container.ExecOptions{
		Cmd: command.Args, AttachStdin: command.Stdin, AttachStdout: true, AttachStderr: true, Tty: command.TTY,
		User: command.User, WorkingDir: command.WorkingDir,
	}
	if command.TTY {
		options.DetachKeys = noDetach
	}
	bounded, cancel := context.WithTimeout(ctx, e.cfg.WorkTimeout)
	defer cancel()
	made, err := docker.ContainerExecCreate(bounded, id, options)
	if err != nil {
		return nil, wrap(err, "exec in container %.12s", id)
	}
	stream, err := docker.ContainerExecAttach(bounded, made.ID, container.ExecAttachOptions{Tty: command.TTY})
	if err != nil {
		return nil, wrap(err, "exec in container %.12s", id)
	}
	return &process{engine: e.connection, docker: docker, id: made.ID, container: id, tty: command.TTY, stream: stream}, nil
}

// Write implements engine.Process.
func (p *process) Write(data []byte) (int, error) { return p.stream.Conn.Write(data) }

// CloseInput implements engine.Process.
func (p *process) CloseInput() error { return p.stream.CloseWrite() }

// Resize implements engine.Process. The engine returns an error until the process exists.
func (p *process) Resize(ctx context.Context, size engine.Size) (err error) {
	for range resizeTries {
		err = p.docker.ContainerExecResize(ctx, p.id, container.ResizeOptions{Height: uint(size.Rows), Width: uint(size.Columns)})
		if err == nil || pause(ctx, resizePause) != nil {
			break
		}
	}
	return wrap(err, "resize the terminal of a command in container %.12s", p.container)
}

// Wait implements engine.Process.
func (p *process) Wait(ctx context.Context, emit func(data []byte, stderr bool) error) (int, error) {
	defer context.AfterFunc(ctx, p.stream.Close)()
	var head []byte // the first output, where the engine reports that it cannot run the command
	pass := emit
	emit = func(data []byte, stderr bool) error {
		if room := maxRefusal - len(head); room > 0 {
			head = append(head, data[:min(len(data), room)]...)
		}
		return pass(data, stderr)
	}
	var err error
	if p.tty {
		_, err = io.CopyBuffer(struct{ io.Writer }{output{emit: emit}}, struct{ io.Reader }{p.stream.Reader}, make([]byte, outputChunk))
	} else {
		_, err = stdcopy.StdCopy(output{emit, false}, output{emit, true}, p.stream.Reader)
	}
	var refused emitError
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.As(err, &refused):
		return 0, refused.error
	case err != nil:
		return 0, wrap(err, "exec in container %.12s", p.container)
	}
	code, err := p.exitCode(ctx)
	p.ended = err == nil
	return exitCodeOf(code, string(head)), err
}

// maxRefusal is how much of a command's output is checked for the engine's error message.
const maxRefusal = 1024

// exitCodeOf returns a command's exit code as shells and newer engines report it: 127 for a command that does not exist.
// Engine 20.10 reports 126 for that too, with the reason in its own line of output.
func exitCodeOf(code int, output string) int {
	notThere := strings.Contains(output, "executable file not found") || strings.Contains(output, "no such file or directory")
	if code == exitCannotRun && strings.HasPrefix(output, "OCI runtime exec failed: ") && notThere {
		return exitNotFound
	}
	return code
}

// Exit codes of commands that did not run, as in POSIX shells.
const (
	exitCannotRun = 126
	exitNotFound  = 127
)

// exitCode waits for the end of a process whose output has ended. That is usually a moment later, or much later if the
// process closed its output.
func (p *process) exitCode(ctx context.Context) (int, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, exitPauseMax) {
		now, err := p.inspect(ctx)
		if err != nil {
			return 0, err
		}
		if !now.Running {
			return now.ExitCode, nil
		}
		if err := pause(ctx, wait); err != nil {
			return 0, err
		}
	}
}

func (p *process) inspect(ctx context.Context) (container.ExecInspect, error) {
	ctx, cancel := context.WithTimeout(ctx, p.engine.cfg.CallTimeout)
	defer cancel()
	now, err := p.docker.ContainerExecInspect(ctx, p.id)
	return now, wrap(err, "ask for the end of a command in container %.12s", p.container)
}

// output forwards one of a command's output streams.
type output struct {
	emit   func(data []byte, stderr bool) error
	stderr bool
}

// emitError is an error of the output's consumer, not of the engine.
type emitError struct{ error }

func (o output) Write(data []byte) (int, error) {
	for chunk := range slices.Chunk(data, outputChunk) {
		if err := o.emit(slices.Clone(chunk), o.stderr); err != nil {
			return 0, emitError{err}
		}
	}
	return len(data), nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
