package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// contestant brings projects of three services up, and takes them away again. Both return when it is done.
type contestant struct {
	column   string
	up, down func(ctx context.Context, names []string) error
}

// contest lets each contestant bring n projects up and down, one contestant after the other, and all of them again:
// what else the machine has to do then slows them down alike. One that fails is left out from then on.
func contest(ctx context.Context, all []contestant, name, upRow, downRow string, n, runs int, out *table) error {
	ups, downs, failed := map[string][]time.Duration{}, map[string][]time.Duration{}, map[string]error{}
	for run := range runs {
		for i, c := range all {
			if failed[c.column] != nil || ctx.Err() != nil {
				continue
			}
			names := make([]string, n)
			for j := range names {
				names[j] = fmt.Sprintf("%sx%dx%dx%d", name, i, run, j)
			}
			start := time.Now()
			err := c.up(ctx, names)
			up := time.Since(start)
			start = time.Now()
			if err = errors.Join(err, c.down(context.WithoutCancel(ctx), names)); err != nil {
				failed[c.column] = fmt.Errorf("%s: %s, run %d: %w", c.column, upRow, run+1, err)
				fmt.Fprintln(os.Stderr, failed[c.column])
				continue
			}
			down := time.Since(start)
			ups[c.column], downs[c.column] = append(ups[c.column], up), append(downs[c.column], down)
			fmt.Fprintf(os.Stderr, "%-24s %s %6.3f s, down %6.3f s   load %s\n", c.column, upRow, up.Seconds(), down.Seconds(), load())
		}
	}
	err := ctx.Err()
	for _, c := range all {
		if len(ups[c.column]) > 0 {
			out.times(upRow, c.column, ups[c.column])
			out.times(downRow, c.column, downs[c.column])
		}
		err = errors.Join(err, failed[c.column])
	}
	return err
}
