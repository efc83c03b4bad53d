package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caravanserai/cara/internal/testcluster"
)

// tick is the kernel's unit of processor time in /proc, USER_HZ.
const tick = 10 * time.Millisecond

// settle is how long what went before may still be worked off before a process is looked at.
const settle = 10 * time.Second

// idle looks at server and agent while there is no project.
func (c *cluster) idle(ctx context.Context, o options, out *table) error {
	return c.used(ctx, o, out, "idle, no project")
}

// waiting looks at a server alone that has many projects and no node for them.
func (o options) waiting(ctx context.Context, dir string, out *table, name string) (err error) {
	if o.idle == 0 {
		return nil
	}
	c, err := o.openCluster(ctx, dir, "", nil, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close(ctx)) }()
	names := make([]string, o.pending)
	for i := range names {
		names[i] = fmt.Sprintf("%sw%d", name, i)
	}
	if err := c.create(ctx, nil, names...); err != nil {
		return err
	}
	return c.used(ctx, o, out, fmt.Sprintf("%d projects that wait", o.pending))
}

// used enters what server and agent use while nothing happens.
func (c *cluster) used(ctx context.Context, o options, out *table, when string) error {
	if o.idle == 0 {
		return nil
	}
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
		out.set(program+", "+when, byCara, fmt.Sprintf("%.2f %% of a processor, %d MiB", percent, mib))
		fmt.Fprintf(os.Stderr, "%s, %s: %.2f %%, %d MiB\n", program, when, percent, mib)
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

// processor is how much time on a processor a process has had.
func processor(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("look at process %d: %w", pid, err)
	}
	// The name, in parentheses, may have spaces; utime and stime are the 14th and 15th field, the 12th and 13th after it.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("look at process %d: its stat has %d fields", pid, len(fields))
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("look at process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
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
