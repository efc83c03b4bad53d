package docker

import (
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How long a command whose caller has gone may go on: a while to notice that its input has ended, then a while after it
// was hung up on.
const (
	hangUpAfter = 2 * time.Second
	killAfter   = 10 * time.Second
)

// End implements engine.Process. Docker has no call that ends a command, and knows no hangup: a terminal whose connection
// is closed stays open for what runs in it. Where the agent sees the engine's processes (it runs on the same machine, in
// the same PID namespace, and may signal them) it does what a terminal's end does. Elsewhere the end of its input has to
// be enough.
func (p *process) End(ctx context.Context) {
	p.stream.Close()
	if p.ended {
		return
	}
	calls := context.WithoutCancel(ctx) // each has its own time-out; ctx only says that there is no time to wait
	hangup := syscall.SIGTERM
	if p.tty {
		hangup = syscall.SIGHUP
	}
	for _, step := range []struct {
		wait   time.Duration
		signal syscall.Signal
	}{{hangUpAfter, hangup}, {killAfter, syscall.SIGKILL}} {
		pid, over := p.outlives(ctx, calls, step.wait)
		if over || !signalGroup(pid, p.container, step.signal) {
			return
		}
	}
}

// outlives waits until the command has ended, at most for a while; it returns its pid where it has not. An engine that is slow to start a command
// calls it not running until then: a command without a pid that has not failed has yet to begin.
func (p *process) outlives(ctx, calls context.Context, limit time.Duration) (pid int, over bool) {
	deadline := time.Now().Add(limit)
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		now, err := p.inspect(calls)
		if err != nil || !now.Running && (now.Pid != 0 || now.ExitCode != 0) {
			return 0, true
		}
		patient := ctx
		if now.Pid == 0 {
			patient = calls // it cannot be signalled before it has begun
		}
		left := time.Until(deadline)
		if left <= 0 || pause(patient, min(wait, left)) != nil {
			return now.Pid, false
		}
	}
}

// signalGroup signals a command and what it started, after a look at whether it is one: the pid is the engine's word,
// and means another process where the agent does not share the engine's PID namespace.
func signalGroup(pid int, container string, signal syscall.Signal) bool {
	if pid <= 1 || !inContainer(pid, container) {
		return false
	}
	if group, err := syscall.Getpgid(pid); err == nil && group == pid {
		pid = -pid
	}
	return syscall.Kill(pid, signal) == nil
}

// inContainer reports whether a process of this machine belongs to a container: its control group carries the whole id.
func inContainer(pid int, container string) bool {
	groups, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	return err == nil && len(container) == 64 && strings.Contains(string(groups), container)
}
