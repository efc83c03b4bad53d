package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caravanserai/cara/internal/test/testcluster"
)

// settle is how long what went before may still be worked off before a process is looked at.
const settle = 10 * time.Second

// idle looks at server and agent while there is no project.
func (c *cluster) idle(ctx context.Context, o options, out *table) error {
	return c.used(ctx, o, out, "idle, no project")
}

// waiting looks at a server alone that has many projects and no node for them.
func (o options) waiting(ctx context.Context, dir string, out *table, name string) (err error) {
	c, err := o.openCluster(ctx, dir, "", nil, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close(ctx)) }()
	names := make([]string, o.pending)
	for i := range names {
		names[i] = fmt.Sprintf("%sw%d", name, i)
	}
	if err := c.create(ctx, single, false, names...); err != nil {
		return err
	}
	return c.used(ctx, o, out, fmt.Sprintf("%d projects that wait", o.pending))
}

// used enters what server and agent use while nothing happens.
func (c *cluster) used(ctx context.Context, o options, out *table, when string) error {
	if err := pause(ctx, settle); err != nil {
		return err
	}
	processes := map[string]*testcluster.Process{"cara-server": c.Server}
	if agent := c.Agents[node]; agent != nil {
		processes["cara-agent"] = agent
	}
	before := map[string]time.Duration{}
	for program, p := range processes {
		var err error
		if before[program], err = processor(p.Pid()); err != nil {
			return err
		}
	}
	if err := pause(ctx, o.idle); err != nil {
		return err
	}
	for program, p := range processes {
		after, err := processor(p.Pid())
		if err != nil {
			return err
		}
		mib, err := resident(p.Pid())
		if err != nil {
			return err
		}
		percent := 100 * (after - before[program]).Seconds() / o.idle.Seconds()
		out.set(program+", "+when, byCara, fmt.Sprintf("%.3f %% of a processor, %d MiB", percent, mib))
		fmt.Fprintf(os.Stderr, "%s, %s: %.3f %%, %d MiB\n", program, when, percent, mib)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// processor is how much time on a processor a process has had, all its threads together, those that have ended too. It
// asks the process's own clock, as clock_getcpuclockid(3) names it: the tick of /proc/PID/stat is as long as what an
// idle process needs in ten seconds.
func processor(pid int) (time.Duration, error) {
	const wholeProcess = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|wholeProcess), &t); err != nil {
		return 0, fmt.Errorf("read the processor clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// resident is the memory that a process has, in MiB.
func resident(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("look at process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("look at process %d: %w", pid, err)
			}
			return kib / 1024, nil
		}
	}
	return 0, fmt.Errorf("look at process %d: its status says nothing of memory", pid)
}
