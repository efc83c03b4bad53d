package confine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// asAgent is the environment variable that makes the test program an agent that runs TestTheProgramEndsWithTheAgent's program.
const asAgent = "CARA_TEST_AS_AGENT"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Command {
		runtime.LockOSThread() // so that Exec has another thread than the first one, as it can have in the agent
		failed := make(chan error)
		go func() { failed <- Exec(context.Background(), os.Args[2:], os.Environ()) }() //nolint:forbidigo // it is the main of a process
		fmt.Fprintln(os.Stderr, <-failed)
		os.Exit(1)
	}
	if os.Getenv(asAgent) != "" {
		if err := runAgent(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestParse(t *testing.T) {
	o, args, err := parse([]string{`{"access":{"read":["/a"],"write":["/b"],"link":["/c"],"network":true},"death":9}`, "/bin/x", "-y"})
	want := order{Access: Access{Read: []string{"/a"}, Write: []string{"/b"}, Link: []string{"/c"}, Network: true}, Death: unix.SIGKILL}
	if err != nil || !cmp.Equal(o, want) || !slices.Equal(args, []string{"/bin/x", "-y"}) {
		t.Errorf("%+v, %q, %v", o, args, err)
	}
	for _, words := range [][]string{nil, {"{}"}, {"/bin/x", "-y"}, {`{"access":[]}`, "/bin/x"}} {
		if _, _, err := parse(words); err == nil {
			t.Errorf("%q is accepted", words)
		}
	}
}

func TestReplace(t *testing.T) {
	got := replace([]string{"/bin/ssh", "-i", "/proc/{pid}/fd/4", "--rsh='{self}' 'pipe'"}, 7, 123)
	if want := []string{"/bin/ssh", "-i", "/proc/123/fd/4", "--rsh='/proc/self/fd/7' 'pipe'"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProblem(t *testing.T) {
	tests := []struct {
		version int
		err     error
		want    string
	}{
		{1, nil, ""},
		{7, nil, ""},
		{0, nil, "unknown version"},
		{0, unix.ENOSYS, "needs Linux 5.13"},
		{0, unix.EOPNOTSUPP, "boot parameter lsm"},
		{0, unix.EPERM, "operation not permitted"},
	}
	for _, tt := range tests {
		if got := problem(tt.version, tt.err); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%d, %v: %q, want %q", tt.version, tt.err, got, tt.want)
		}
	}
}

func TestNetwork(t *testing.T) {
	got := network([]string{"A=/a", "SSL_CERT_FILE=/b/ca.pem", "SSL_CERT_DIR=/c:/d", "SSL_CERT_DIRS=/e"})
	if tail := got[len(got)-3:]; !slices.Equal(tail, []string{"/b/ca.pem", "/c", "/d"}) {
		t.Errorf("ends with %q", tail)
	}
	if slices.Contains(network([]string{"SSL_CERT_FILE="}), "") {
		t.Error("the empty path is named")
	}
}

// shell returns a confined shell that runs a script.
func shell(t *testing.T, access Access, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := Wrap(cmd, access); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// output runs a command and returns what it prints, also if it fails.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var exit *exec.ExitError
	runtime.LockOSThread() // the command ends with this thread
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String()
}

func needLandlock(t *testing.T) {
	t.Helper()
	if problem := Problem(); problem != "" {
		testneed.Missing(t, "the kernel must confine programs: %s", problem)
	}
}

// tree makes the directories read, write and link and the file single that a program can open, and the directory other that it cannot
// open. There is a file in each directory.
func tree(t *testing.T) (dir string, access Access) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"read/a", "write/a", "link/a", "other/a", "single"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(name), "sub"), 0o700), os.WriteFile(filepath.Join(dir, name), []byte("in "+name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "other"), filepath.Join(dir, "read", "away")); err != nil {
		t.Fatal(err)
	}
	return dir, Access{
		Read: []string{filepath.Join(dir, "read"), filepath.Join(dir, "single"), filepath.Join(dir, "missing")}, Write: []string{filepath.Join(dir, "write")}, Link: []string{filepath.Join(dir, "link")},
	}
}

func TestConfined(t *testing.T) {
	needLandlock(t)
	tests := []struct{ name, script, want string }{
		{"reads what it can read", "cat read/a", "in read/a"},
		{"reads a single file", "cat single", "in single"},
		{"reads what it can write", "cat write/a", "in write/a"},
		{"lists what it can read", "ls read", "a\naway\nsub"},
		{"writes", "echo new >write/b && mkdir write/d && rm write/a && mv write/b write/c && cat write/c", "new"},
		{"moves and links", "ln link/a link/sub/b && mv link/a link/sub/a && cat link/sub/a link/sub/b", "in link/ain link/a"},
		{"runs the agent's program", "{self} -test.run=^$ >/dev/null 2>&1 && echo ran", "ran"},
		{"knows its process ID", "test $$ = {pid} && echo equal", "equal"},
		{"uses devices", "head -c 1 /dev/urandom >/dev/null && echo used", "used"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, access := tree(t)
			if got := strings.TrimSpace(output(t, shell(t, access, "cd "+dir+"; "+tt.script))); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestOutOfReach checks scripts that print "done" if the program is not confined.
func TestOutOfReach(t *testing.T) {
	needLandlock(t)
	tests := []struct{ name, script string }{
		{"reads a file", "cat other/a"},
		{"lists a directory", "ls other"},
		{"follows a link", "cat read/away/a"},
		{"follows a link to the root", "cat /proc/self/root$PWD/other/a"},
		{"writes a file", "echo x >other/a"},
		{"makes a file", "echo x >other/b"},
		{"removes a file", "rm other/a"},
		{"writes what it can read", "echo x >read/a"},
		{"writes a single file that it can read", "echo x >single"},
		{"makes a link", "ln read/a link/b"},
		{"reads users", "cat /etc/passwd"},
		{"reads the environment of a process", "cat /proc/self/environ"},
		{"looks into the agent", "ls /proc/$PPID/fd/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, access := tree(t)
			script := "cd " + dir + "; " + tt.script + " && echo done"
			if got := output(t, shell(t, access, script)); strings.Contains(got, "done") {
				t.Errorf("confined: %q", got)
			}
			if got := output(t, exec.CommandContext(t.Context(), "/bin/sh", "-c", script)); !strings.Contains(got, "done") {
				t.Errorf("not confined: %q", got)
			}
		})
	}
}

func TestNetworkFiles(t *testing.T) {
	needLandlock(t)
	if got := output(t, shell(t, Access{Network: true}, "cat /etc/passwd >/dev/null && echo read")); got != "read\n" {
		t.Errorf("got %q", got)
	}
}

// TestInheritedFile checks that a confined program opens a file that it inherits, and that a program that it starts can do this
// without inheriting the file, as ssh does for restic.
func TestInheritedFile(t *testing.T) {
	fd, err := unix.MemfdCreate("password", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "password")
	defer f.Close()
	if _, err := f.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	for _, script := range []string{"cat /proc/self/fd/3", "(exec 3<&-; cat /proc/{pid}/fd/3); true"} {
		cmd := shell(t, Access{}, script)
		cmd.ExtraFiles = []*os.File{f}
		if got := output(t, cmd); got != "hello" {
			t.Errorf("%s: %q", script, got)
		}
	}
}

// TestStopped checks that the program does not start after ctx has ended, as it has when the agent died meanwhile.
func TestStopped(t *testing.T) {
	const stopped = "CARA_TEST_STOPPED"
	if os.Getenv(stopped) != "" {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		fmt.Println("result:", Exec(ctx, []string{"{}", "/bin/echo", "started"}, nil))
		return
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestStopped$", "-test.v")
	cmd.Env = append(os.Environ(), stopped+"=1")
	if got := output(t, cmd); !strings.Contains(got, "result: context canceled") {
		t.Errorf("got %q", got)
	}
}

// TestTheProgramEndsWithTheAgent kills a process that runs a confined program. The program must end, too.
func TestTheProgramEndsWithTheAgent(t *testing.T) {
	agent := exec.CommandContext(t.Context(), program)
	agent.Env = append(os.Environ(), asAgent+"=1")
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	read := bufio.NewReader(out)
	line, err := read.ReadString('\n')
	pid, problem := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || problem != nil {
		t.Fatalf("%q, %v", line, err)
	}
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(2*time.Minute, func() {
		t.Errorf("the program has not ended two minutes after its agent: %v", syscall.Kill(pid, syscall.SIGKILL))
	})
	if rest, err := io.ReadAll(read); len(rest) > 0 || err != nil { // the output ends when the program does
		t.Errorf("%q, %v", rest, err)
	}
	limit.Stop()
	_ = agent.Wait() // killed
}

// runAgent runs a confined program that prints its process ID and waits for a signal.
func runAgent() error {
	runtime.LockOSThread()                                                                        // the program ends with this thread
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", "echo $$; exec sleep 1000") //nolint:forbidigo // it is the main of a process
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout = os.Stdout
	return errors.Join(Wrap(cmd, Access{}), cmd.Run())
}
