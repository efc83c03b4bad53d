package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caravanserai/cara/agent/confine"
	"github.com/caravanserai/cara/api"
)

// maxMessages is the maximum size of the error output that is kept.
const maxMessages = 8 << 10

// endPatience is how long the output of a child that has ended is still read.
const endPatience = 5 * time.Second

// command returns a command that gets nothing of the agent's environment, and that is killed with all its children when ctx
// ends.
func command(ctx context.Context, program string, args ...string) (*exec.Cmd, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, final("%s is not installed on the node: install the package %s", program, program)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = childAttributes()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = endPatience
	return cmd, nil
}

// confined returns a command like those of command. It can open only what access names.
func confined(ctx context.Context, access confine.Access, program string, args ...string) (*exec.Cmd, error) {
	cmd, err := command(ctx, program, args...)
	if err != nil {
		return nil, err
	}
	return cmd, confine.Wrap(cmd, access)
}

// running is a child process.
type running struct {
	started chan error
	ended   chan error
}

// start starts a command, and waits for its end once read is closed. The kernel kills a child when the thread that started it
// ends, so one goroutine keeps the thread until the child has ended.
func start(cmd *exec.Cmd, read <-chan struct{}) (*running, error) {
	r := &running{started: make(chan error, 1), ended: make(chan error, 1)}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		r.started <- err
		if err == nil {
			<-read
			r.ended <- cmd.Wait()
		}
	}()
	if err := <-r.started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return r, nil
}

// wait returns the exit code of the child. The error is not nil if it did not end by itself.
func (r *running) wait(ctx context.Context) (code int, err error) {
	err = <-r.ended
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// head keeps the first bytes of an output.
type head struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf.Write(p[:min(len(p), maxMessages-h.buf.Len())])
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.buf.String()
}

// lines calls do for each line of an output, which may end with a carriage return. Longer lines are cut.
type lines struct {
	do  func([]byte)
	buf []byte
}

func (l *lines) Write(p []byte) (int, error) {
	for _, b := range p {
		switch {
		case b == '\r' || b == '\n':
			l.do(l.buf)
			l.buf = l.buf[:0]
		case len(l.buf) < maxMessages:
			l.buf = append(l.buf, b)
		}
	}
	return len(p), nil
}

// firstMessages keeps the first messages of the sending rsync. A volume can lose thousands of files while it is copied, so it keeps only
// the first message about such a file: the others must leave room for errors.
type firstMessages struct {
	head
	vanished atomic.Bool
}

// line adds a message.
func (m *firstMessages) line(line []byte) {
	if text := strings.TrimSpace(string(line)); text != "" && !(isVanished(text) && m.vanished.Swap(true)) {
		_, _ = fmt.Fprintln(m, text) // a head never fails
	}
}

// socketPair returns the two ends of a socket: one for the agent, and one for a child.
func socketPair() (own *net.UnixConn, child *os.File, err error) {
	syscall.ForkLock.RLock() // no child may inherit the agent's end
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket for rsync: %w", err)
	}
	mine, child := os.NewFile(uintptr(fds[0]), "own"), os.NewFile(uintptr(fds[1]), "child")
	defer mine.Close() // the connection has a copy
	conn, err := net.FileConn(mine)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("use the socket for rsync: %w", err), child.Close())
	}
	return conn.(*net.UnixConn), child, nil
}

// Tools returns the versions of the programs on this machine that Cara uses for data, by name. One that is not installed is
// left out.
func Tools(ctx context.Context) map[string]string {
	out := map[string]string{}
	for name, args := range map[string][]string{api.ToolRsync: {"--version"}, api.ToolRestic: {"version"}} {
		ctx, cancel := context.WithTimeout(ctx, toolPatience)
		if cmd, err := command(ctx, name, args...); err == nil {
			if said, err := cmd.Output(); err == nil {
				out[name] = parseVersion(said)
			}
		}
		cancel()
	}
	return out
}

// toolPatience is how long a program may take to say its version.
const toolPatience = 5 * time.Second

// maxVersion is the maximum length of a version in the API.
const maxVersion = 64

// parseVersion returns the version in the output of `rsync --version` or `restic version`: the first field that begins with a
// digit. It is "unknown" if there is none.
func parseVersion(output []byte) string {
	first, _, _ := bytes.Cut(output, []byte("\n"))
	for field := range bytes.FieldsSeq(first) {
		if c := field[0]; c >= '0' && c <= '9' && len(field) <= maxVersion {
			return string(field)
		}
	}
	return "unknown"
}
