package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
)

// Limits of one run of restic.
const (
	maxOutput  = 8 << 20 // bytes of standard output that are kept
	maxStderr  = 64 << 10
	killAfter  = 15 * time.Second // after an interrupt, in which restic removes its lock
	openLimit  = 2 * time.Minute  // for the first command, which shows whether the repository can be reached
	shortLimit = 5 * time.Minute  // for commands that read or write little
	longLimit  = 24 * time.Hour   // for commands that read or write data
)

// session runs restic with the credentials of one repository. It must be closed.
type session struct {
	restic string // path of the program
	env    []string
	global []string // options of every run
	files  []*memory
	log    *memory // what ssh says: restic may end before it has passed that on. Nil without ssh.
}

// open prepares a session. The values are those of a Secret of type backup.
func (r *Runner) open(values map[string][]byte) (*session, *Failure) {
	if problem := api.BackupProblem(values); problem != "" {
		return nil, fail(api.ReasonBackupSecret, "the Secret of spec.backup.secretRef cannot be used: %s", problem)
	}
	if err := allowed(text(values, api.BackupRepository), r.Dirs); err != nil {
		return nil, fail(api.ReasonRepositoryNotAllowed, "%v", err)
	}
	s := &session{}
	var err error
	if s.restic = r.Restic; s.restic == "" {
		s.restic, err = find("restic")
	}
	if err == nil {
		_, err = os.Stat(s.restic)
	}
	if err != nil {
		return nil, fail(api.ReasonResticMissing, "restic is not installed on this node: install the package restic (apt-get install restic)")
	}
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return nil, fail(api.ReasonBackupFailed, "make the agent's directory for backups: %v", err)
	}
	memory := func(key string) string {
		if err != nil {
			return ""
		}
		var m *memory
		if m, err = newMemory(key, append(bytes.TrimSpace(values[key]), '\n')); err != nil {
			return ""
		}
		s.files = append(s.files, m)
		return m.path()
	}
	s.env = environment(r.Environ, values, r.Dir, memory(api.BackupPassword))
	if _, ok := api.ParseSFTP(text(values, api.BackupRepository)); ok {
		s.global = sshArgs(values, memory(api.BackupSSHKey), memory(api.BackupKnownHosts), memory("log"))
		if err == nil {
			s.log = s.files[len(s.files)-1]
		}
	}
	if err != nil {
		s.close()
		return nil, fail(api.ReasonBackupFailed, "%v", err)
	}
	return s, nil
}

func (s *session) close() {
	for _, f := range s.files {
		f.close()
	}
}

// find returns the path of a program. The agent's own PATH does not count.
func find(program string) (string, error) {
	for dir := range strings.SplitSeq(searchPath, ":") {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: %w", program, fs.ErrNotExist)
}

// run runs restic in a directory.
func (s *session) run(ctx context.Context, limit time.Duration, dir string, args ...string) outcome {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.restic, append(append([]string{}, s.global...), args...)...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = s.env, dir, killAfter
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.SysProcAttr = childAttributes()
	stdout, stderr := &tail{limit: maxOutput}, &tail{limit: maxStderr}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := runPinned(cmd)
	out := outcome{stdout: stdout.data, stderr: string(stderr.data)}
	if s.log != nil {
		out.stderr = s.log.take(maxStderr) + out.stderr
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		out.code = exit.ExitCode()
	} else if err != nil {
		out.code, out.stderr = -1, out.stderr+"\n"+err.Error()
	}
	if why := ctx.Err(); why != nil && out.code != 0 {
		out.code, out.stderr = -1, out.stderr+"\n"+why.Error()
	}
	return out
}

// runPinned runs a command. The kernel interrupts it when the thread that started it ends, so this thread is kept until then.
func runPinned(cmd *exec.Cmd) error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		ended <- cmd.Run()
	}()
	return <-ended
}

// do runs restic, and once more if a dead run has left a lock. restic unlock removes only locks whose process is gone: those of
// this machine, and those that nobody has renewed for half an hour.
func (s *session) do(ctx context.Context, limit time.Duration, dir, doing string, args ...string) (outcome, *Failure) {
	o := s.run(ctx, limit, dir, args...)
	f := judge(doing, o)
	if f != nil && f.Reason == api.ReasonRepositoryLocked && s.run(ctx, shortLimit, dir, "unlock").code == 0 {
		o = s.run(ctx, limit, dir, args...)
		f = judge(doing, o)
	}
	if f != nil && f.Reason == reasonMissing {
		f.Reason = api.ReasonRepositoryCorrupted // it was there, or was just made
	}
	return o, f
}

// prepare makes the repository if there is none, and checks the password otherwise.
func (s *session) prepare(ctx context.Context, dir string) *Failure {
	f := judge("opening the repository", s.run(ctx, openLimit, dir, "cat", "config", "--no-lock"))
	if f == nil || f.Reason != reasonMissing {
		return f
	}
	_, f = s.do(ctx, shortLimit, dir, "making the repository", "init")
	return f
}

// tail keeps the last bytes that are written to it.
type tail struct {
	limit int
	data  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - t.limit; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(p), nil
}
