package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

// An engine up to version 20.10 that is killed during a start can lose the container's process: after its restart it reports the
// container as not running, sends SIGTERM to the process once, and has no call that ends it. The process keeps its volumes, even if
// the container and the volumes are removed.

// KillLost implements engine.Lifecycle. An inspection waits for a start that is under way, so a process that existed before the
// inspection of a container that is not running is a lost one.
func (e *containers) KillLost(ctx context.Context, labels map[string]string) (lost []engine.Container, err error) {
	found := processes()
	list, err := e.ListContainers(ctx, labels)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		if len(found[c.ID]) == 0 {
			continue
		}
		now, err := e.InspectContainer(ctx, c.ID)
		if errors.Is(err, engine.ErrNotFound) {
			continue // its removal has ended its processes
		}
		if err != nil {
			return lost, err
		}
		if !slices.Contains([]string{engine.StateCreated, engine.StateExited, engine.StateDead}, now.State) {
			continue
		}
		if _, err := e.killLeft(ctx, c.ID); err != nil {
			return lost, err
		}
		lost = append(lost, now)
	}
	return lost, nil
}

// killLeft kills the processes of a container that has none according to the engine, waits until they are gone, and reports
// whether there were any.
func (e *connection) killLeft(ctx context.Context, id string) (killed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	for {
		left := processes()[id]
		if len(left) == 0 {
			return killed, nil
		}
		for _, pid := range left {
			if err := kill(pid, id); err != nil {
				return killed, fmt.Errorf("process %d of container %.12s still runs, and the engine has lost it: end it on the node, or run the agent as root: %w", pid, id, err)
			}
		}
		killed = true
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return killed, fmt.Errorf("process %d of container %.12s, which the engine has lost, does not end after SIGKILL: %w", left[0], id, err)
		}
	}
}

// kill kills a process if it belongs to the container.
func kill(pid int, container string) error {
	p, err := os.FindProcess(pid) // from now on p cannot mean another process
	if err != nil {
		return err
	}
	defer p.Release() //nolint:errcheck // it fails only if it was done before
	if !inContainer(pid, container) {
		return nil
	}
	if err := p.Kill(); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// containerID is the full id of a container.
var containerID = regexp.MustCompile(`[0-9a-f]{64}`)

// processes returns the processes of this machine by the containers that they belong to. It has no process of an engine on
// another machine, or in another PID namespace.
func processes() map[string][]int {
	out := map[string][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return out
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		ids := containerID.FindAllString(controlGroups(pid), -1)
		slices.Sort(ids)
		for _, id := range slices.Compact(ids) {
			out[id] = append(out[id], pid)
		}
	}
	return out
}

// startFailed is the error of a failed start.
func (e *containers) startFailed(ctx context.Context, id string, err error) error {
	switch {
	case strings.Contains(err.Error(), "is ambiguous"): // two networks with the same name
		return fmt.Errorf("start container %.12s: %w", id, tidy(err))
	case !stuck(err, id):
		return wrap(err, "start container %.12s", id)
	}
	killed, left := e.killLeft(ctx, id)
	switch {
	case left != nil:
		return fmt.Errorf("start container %.12s: %w: %w", id, engine.ErrLost, left)
	case !killed && inUse(err):
		return fmt.Errorf("start container %.12s: %w, where this agent cannot see it: end it there, or restart that machine: %w", id, engine.ErrLost, tidy(err))
	}
	return fmt.Errorf("start container %.12s: %w: %w", id, engine.ErrStuck, tidy(err))
}

// stuck reports whether an engine that ended during a start left a task, or the directory of one, in containerd. The engine does
// not remove these, neither when it comes back nor before another start of the container.
func stuck(err error, id string) bool {
	return inUse(err) || strings.Contains(err.Error(), "task "+id+": already exists") || strings.Contains(err.Error(), "/"+id+": file exists")
}

// inUse reports whether the container has a process that the engine has lost.
func inUse(err error) bool { return strings.Contains(err.Error(), "id already in use") }
