package backup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/confine"
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

// firstFile is the number of the first open file that a program gets besides its standard streams.
const firstFile = 3

// Directories in Runner.Dir that restic can write to.
const (
	cacheDir     = "cache"
	temporaryDir = "tmp"
)

// session runs restic with the credentials of one repository. It must be closed.
type session struct {
	restic string // path of the program
	env    []string
	global []string  // options of every run
	files  []*memory // those of memoryFiles
	access confine.Access
	local  string // path of the repository if it is a directory
}

// open prepares a session. The values are those of a Secret of type backup. access has what restic can open besides the
// repository and what every run needs.
func (r *Runner) open(values map[string][]byte, access confine.Access) (*session, *Failure) {
	if problem := api.BackupProblem(values); problem != "" {
		return nil, fail(api.ReasonBackupSecret, "the Secret of spec.backup.secretRef cannot be used: %s", problem)
	}
	if err := allowed(text(values, api.BackupRepository), r.Dirs); err != nil {
		return nil, fail(api.ReasonRepositoryNotAllowed, "%v", err)
	}
	restic, f := r.find()
	if f != nil {
		return nil, f
	}
	s := &session{access: access, restic: restic}
	if err := s.grant(r.Dir, text(values, api.BackupRepository)); err != nil {
		return nil, fail(api.ReasonBackupFailed, "make the agent's directory for backups: %v", err)
	}
	if err := s.hold(values); err != nil {
		s.close()
		return nil, fail(api.ReasonBackupFailed, "%v", err)
	}
	s.env = environment(r.Environ, values, r.Dir, memoryPath("self", api.BackupPassword))
	s.global = sshArgs(values, memoryPath(confine.PID, api.BackupSSHKey), memoryPath(confine.PID, api.BackupKnownHosts), memoryPath(confine.PID, sshLog))
	return s, nil
}

// grant adds what every run of restic opens. The rest of the agent's directory has data of other projects while their backups
// are verified.
func (s *session) grant(dir, repository string) error {
	s.access.Network = true
	for _, name := range []string{cacheDir, temporaryDir} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		s.access.Write = append(s.access.Write, path)
	}
	if api.IsLocalBackup(repository) {
		s.local = repository
		s.access.Write = append(s.access.Write, repository)
	}
	return nil
}

// sshLog is the file to which ssh writes its messages: restic may end before it has passed them on.
const sshLog = "ssh-log"

// memoryFiles are the files in memory that restic and ssh use, in the order of the open files of restic: keys of the Secret, and
// sshLog.
func memoryFiles() []string {
	return []string{api.BackupPassword, api.BackupSSHKey, api.BackupKnownHosts, sshLog}
}

// hold makes the files in memory, with the values of the keys.
func (s *session) hold(values map[string][]byte) error {
	for _, key := range memoryFiles() {
		m, err := newMemory(key, append(bytes.TrimSpace(values[key]), '\n'))
		if err != nil {
			return err
		}
		s.files = append(s.files, m)
	}
	return nil
}

// memoryPath returns the path at which restic, or ssh, can open a file in memory. process is the process ID of restic, or "self" for
// restic itself: it cannot open files of the agent, because it is confined. ssh closes the files that it inherits, but it can
// open those of restic.
func memoryPath(process, name string) string {
	return fmt.Sprintf("/proc/%s/fd/%d", process, firstFile+slices.Index(memoryFiles(), name))
}

func (s *session) close() {
	for _, f := range s.files {
		f.close()
	}
}

// Problem returns why this node cannot make backups of any project, with what to do, or nil.
func (r *Runner) Problem() *Failure {
	_, f := r.find()
	return f
}

// find returns the path of restic. The agent's own PATH does not count.
func (r *Runner) find() (string, *Failure) {
	for dir := range strings.SplitSeq(searchPath, ":") {
		path := cmp.Or(r.Restic, filepath.Join(dir, "restic"))
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fail(api.ReasonResticMissing, "restic is not installed on this node: install the package restic (apt-get install restic)")
}

// run runs restic in a directory.
func (s *session) run(ctx context.Context, limit time.Duration, dir string, args ...string) outcome {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.restic, append(append([]string{}, s.global...), args...)...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = s.env, dir, killAfter
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.SysProcAttr = childAttributes()
	for _, f := range s.files {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f.file)
	}
	stdout, stderr := &tail{limit: maxOutput}, &tail{limit: maxStderr}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := confine.Wrap(cmd, s.access)
	if err == nil {
		err = runPinned(cmd)
	}
	ssh := s.files[slices.Index(memoryFiles(), sshLog)].take(maxStderr) // what it has written since the last run
	out := outcome{stdout: stdout.data, stderr: ssh + string(stderr.data)}
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
	const doing = "making the repository"
	if s.local != "" {
		if err := os.MkdirAll(s.local, 0o700); err != nil { // a confined restic can only write into it
			return judge(doing, outcome{code: 1, stderr: err.Error()})
		}
	}
	_, f = s.do(ctx, shortLimit, dir, doing, "init")
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
