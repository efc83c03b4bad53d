package docker

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/caravanserai/cara/agent/engine"
)

// How long a command may continue after its client left: first to notice the end of its input, then after the hangup signal. A
// command that the engine has not started yet gets neither: startWithin is how long End waits for the start.
const (
	hangUpAfter = 2 * time.Second
	killAfter   = 10 * time.Second
	startWithin = 30 * time.Second
)

// End implements engine.Process. Docker has no call that ends a command and sends no hangup: a terminal whose connection is
// closed stays open for its processes. If the agent can see and signal the engine's processes (same machine, same PID
// namespace), it sends the signals that the end of a terminal would cause. Otherwise closing the input must suffice.
func (p *process) End(ctx context.Context) {
	p.stream.Close()
	if p.ended {
		return
	}
	calls := context.WithoutCancel(ctx) // each has its own timeout; the end of ctx only means not to wait
	hangup := syscall.SIGTERM
	if p.tty {
		hangup = syscall.SIGHUP
	}
	for _, step := range []struct {
		wait   time.Duration
		signal syscall.Signal
	}{{hangUpAfter, hangup}, {killAfter, syscall.SIGKILL}} {
		pid, over := outlives(ctx, calls, p.inspect, step.wait)
		if over || !signalGroup(pid, p.container, step.signal) {
			return
		}
	}
}

// outlives waits up to limit for a command to end. If it has not ended, outlives returns its pid. While an engine is still
// starting a command, it reports it as not running. So a command that has neither a pid nor an exit code has not started
// yet, and its time has not begun. The end of ctx ends the wait, but not the one for the start: a command that starts later
// would run until its container stops.
func outlives(ctx, calls context.Context, inspect func(context.Context) (container.ExecInspect, error), limit time.Duration) (pid int, over bool) {
	begun := time.Now()
	deadline := begun.Add(limit)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, exitPauseMax) {
		now, err := inspect(calls)
		if err != nil && !errors.Is(err, engine.ErrUnavailable) || err == nil && !now.Running && (now.Pid != 0 || now.ExitCode != 0) {
			return 0, true
		}
		patient := ctx
		if err == nil && now.Pid == 0 && time.Since(begun) < startWithin {
			patient, deadline = calls, time.Now().Add(limit)
		}
		left := time.Until(deadline)
		if left <= 0 || pause(patient, min(wait, left)) != nil {
			return now.Pid, false
		}
	}
}

// signalGroup signals a command and its process group. It first checks that the pid belongs to the container, because the
// engine's pid means another process if the agent is in a different PID namespace.
func signalGroup(pid int, container string, signal syscall.Signal) bool {
	if pid <= 1 || !inContainer(pid, container) {
		return false
	}
	if group, err := syscall.Getpgid(pid); err == nil && group == pid {
		pid = -pid
	}
	return syscall.Kill(pid, signal) == nil
}

// inContainer reports whether a process of this machine belongs to a container, whose full id is then in the process's
// control groups.
func inContainer(pid int, container string) bool {
	return len(container) == 64 && strings.Contains(controlGroups(pid), container)
}

// controlGroups returns the control groups of a process, or nothing if there is no such process.
func controlGroups(pid int) string {
	groups, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	return string(groups)
}
