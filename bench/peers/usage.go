package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

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
	if err := testcluster.Pause(ctx, settle); err != nil {
		return err
	}
	processes := map[string]*testcluster.Process{"cara-server": c.Server}
	if agent := c.Agents[node]; agent != nil {
		processes["cara-agent"] = agent
	}
	before := map[string]testcluster.Usage{}
	for program, p := range processes {
		var err error
		if before[program], err = testcluster.UsageOf(p.Pid()); err != nil {
			return err
		}
	}
	if err := testcluster.Pause(ctx, o.idle); err != nil {
		return err
	}
	for program, p := range processes {
		after, err := testcluster.UsageOf(p.Pid())
		if err != nil {
			return err
		}
		percent, mib := 100*(after.Processor-before[program].Processor).Seconds()/o.idle.Seconds(), after.Resident>>20
		out.set(program+", "+when, byCara, fmt.Sprintf("%.3f %% of a processor, %d MiB", percent, mib))
		fmt.Fprintf(os.Stderr, "%s, %s: %.3f %%, %d MiB\n", program, when, percent, mib)
	}
	return nil
}
