package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/caravanserai/cara/internal/test/testcluster"
)

// shape is what a contestant is asked for: so many projects at once, each of so many services of one image.
type shape struct{ projects, services int }

func (s shape) String() string { return fmt.Sprintf("%d x %d", s.projects, s.services) }

// services are the names of a project's services.
func (s shape) names() []string {
	out := make([]string, s.services)
	for i := range out {
		out[i] = fmt.Sprintf("s%d", i)
	}
	return out
}

// contestant brings projects up, and takes them away again. Both return when it is done. down is called whatever became
// of up, and leaves nothing behind.
type contestant struct {
	column   string
	up, down func(ctx context.Context, s shape, names []string) error
}

// rest is between up and down: a program that has just been started may not listen to a signal yet, and would be
// waited for until it is killed.
const rest = time.Second

// contest lets each contestant bring projects up and down, one contestant after the other, and all of them again: what
// else the machine has to do then slows them down alike. One that fails is left out from then on. What was measured
// until an interruption counts.
func contest(ctx context.Context, all []contestant, prefix string, s shape, runs int, out *table) error {
	ups, downs, failed := map[string][]time.Duration{}, map[string][]time.Duration{}, map[string]error{}
	for run := range runs {
		for i, c := range all {
			if failed[c.column] != nil || ctx.Err() != nil {
				continue
			}
			names := make([]string, s.projects)
			for j := range names {
				names[j] = fmt.Sprintf("%sx%dx%dx%dx%d", prefix, s.services, i, run, j)
			}
			start := time.Now()
			err := c.up(ctx, s, names)
			up := time.Since(start)
			err = errors.Join(err, testcluster.Pause(ctx, rest))
			start = time.Now()
			if err = errors.Join(err, c.down(context.WithoutCancel(ctx), s, names)); err != nil {
				failed[c.column] = fmt.Errorf("%s: %s, run %d: %w", c.column, s, run+1, err)
				fmt.Fprintln(os.Stderr, failed[c.column])
				continue
			}
			down := time.Since(start)
			ups[c.column], downs[c.column] = append(ups[c.column], up), append(downs[c.column], down)
			fmt.Fprintf(os.Stderr, "%-24s %-7s up %6.3f s, down %6.3f s   load %s\n", c.column, s, up.Seconds(), down.Seconds(), load())
		}
	}
	err := ctx.Err()
	for _, c := range all {
		if len(ups[c.column]) > 0 {
			out.times(s.String()+" services -> running", c.column, ups[c.column])
			out.times(s.String()+" -> gone", c.column, downs[c.column])
		}
		err = errors.Join(err, failed[c.column])
	}
	return err
}
