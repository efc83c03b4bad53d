package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caravanserai/cara/internal/test/testcluster"
)

// terminal is what a person sits at: caractrl runs in it as in a shell's foreground.
type terminal struct {
	*testCluster
	keys, screen *os.File // the person's end, the program's end
	cmd          *exec.Cmd
	read         chan struct{} // closed once nothing more will be shown

	mu    sync.Mutex
	shown bytes.Buffer
}

// sit runs caractrl in a terminal of 24 by 80.
func (w *testCluster) sit(args ...string) *terminal {
	w.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	w.must(err)
	w.must(unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetUint32(int(keys.Fd()), unix.TIOCGPTN)
	w.must(err)
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	w.must(err)
	tm := &terminal{testCluster: w, keys: keys, screen: screen, read: make(chan struct{})}
	tm.resize(24, 80)
	go func() {
		defer close(tm.read)
		buf := make([]byte, 4096)
		for {
			n, err := keys.Read(buf)
			tm.mu.Lock()
			tm.shown.Write(buf[:n])
			tm.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	tm.cmd = exec.CommandContext(w.Context(), filepath.Join(w.Bin, "caractrl"), append([]string{
		"--server", w.URL(), "--token-file", filepath.Join(w.DataDir(), "admin.token"),
	}, args...)...)
	tm.cmd.Env, tm.cmd.Stdin, tm.cmd.Stdout, tm.cmd.Stderr = w.Env(), screen, screen, screen
	tm.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	w.must(tm.cmd.Start())
	w.Cleanup(func() {
		_ = tm.cmd.Process.Kill() // it has ended long ago, unless the test failed
		_ = screen.Close()
		_ = keys.Close()
		<-tm.read
	})
	return tm
}

func (tm *terminal) resize(rows, columns uint16) {
	tm.Helper()
	tm.must(unix.IoctlSetWinsize(int(tm.keys.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
}

func (tm *terminal) types(keys string) {
	tm.Helper()
	_, err := tm.keys.WriteString(keys)
	tm.must(err)
}

// shows waits until the screen has shown a text since the last call, and forgets what came before it.
func (tm *terminal) shows(text string) {
	tm.Helper()
	ctx, cancel := tm.patience()
	defer cancel()
	tm.must(testcluster.WaitFor(ctx, fmt.Sprintf("the terminal shows %q", text), func(context.Context) error {
		tm.mu.Lock()
		defer tm.mu.Unlock()
		all := tm.shown.String()
		at := strings.Index(all, text)
		if at < 0 {
			return fmt.Errorf("it shows %q", all)
		}
		tm.shown.Next(at + len(text))
		return nil
	}))
}

// mode is how the terminal treats its keys.
func (tm *terminal) mode() unix.Termios {
	tm.Helper()
	mode, err := unix.IoctlGetTermios(int(tm.screen.Fd()), unix.TCGETS)
	tm.must(err)
	return *mode
}

// leaves waits until the program has ended and returns its exit code.
func (tm *terminal) leaves() int {
	tm.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = tm.cmd.Wait() // it says the exit code once more
	}()
	ctx, cancel := tm.patience()
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
		tm.Fatal("caractrl does not end")
	}
	return tm.cmd.ProcessState.ExitCode()
}

// TestExecTerminal: a shell at a terminal, as a person has it.
func TestExecTerminal(t *testing.T) {
	w := oneNode(t)
	shop := w.toolbox("shop")
	tm := w.sit("exec", "-it", shop, "--", "sh")
	before := tm.mode()
	tm.types("stty size\n")
	tm.shows("24 80")
	if tm.mode() == before {
		t.Error("the terminal is not raw while the command has it")
	}
	tm.resize(30, 100)
	tm.types("until [ \"$(stty size)\" = '30 100' ]; do sleep 0.1; done; echo si''zed\n")
	tm.shows("sized")
	tm.types("sh -c \"echo be''gun; exec sleep 1000\"\n") // once it speaks, it is in the foreground
	tm.shows("begun")
	tm.types("\x03")
	tm.types("echo st''ill here; exit 5\n")
	tm.shows("still here")
	if code := tm.leaves(); code != 5 {
		t.Errorf("exit code %d", code)
	}
	if tm.mode() != before {
		t.Error("the terminal is left as the command had it")
	}

	// Killed in the middle, it leaves nothing in the container; told to stop, it gives the terminal back, too.
	for name, signal := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGTERM} {
		tm := w.sit("exec", "-it", shop, "--", "sh")
		before := tm.mode()
		tm.types("echo be''gun; sleep 1000\n")
		tm.shows("begun")
		w.must(tm.cmd.Process.Signal(signal))
		tm.leaves()
		if signal != syscall.SIGKILL && tm.mode() != before {
			t.Errorf("%s: the terminal is left as the command had it", name)
		}
		w.alone(shop, "tools")
	}
}
