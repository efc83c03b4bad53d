package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/internal/testimage"
)

// services are the names of the three services of every project that is measured.
var services = []string{"a", "b", "c"} //nolint:gochecknoglobals // never changed

// atOnce bounds what the bare engine is asked for at once when there are many projects.
const atOnce = 4

// floor measures the bare engine.
func (o options) floor(ctx context.Context, e *engine, out *table, name string) error {
	for column, parallel := range map[string]int{inSequence: 1, inParallel: len(services)} {
		var downs []time.Duration
		ups, err := series(column+": "+three, o.runs, func(run int) (time.Duration, error) {
			up, down, err := e.one(ctx, fmt.Sprintf("%sx%d", name, run), subnet(0), parallel)
			downs = append(downs, down)
			return up, err
		})
		if err != nil {
			return err
		}
		out.times(three, column, ups)
		out.times(remove, column, downs)
	}
	var downs []time.Duration
	ups, err := series(inParallel+": "+manyUp, o.fewer(), func(int) (up time.Duration, err error) {
		start := time.Now()
		err = each(o.many, atOnce, func(i int) error { return e.up(ctx, fmt.Sprint(name, i), subnet(i), len(services)) })
		up = time.Since(start)
		start = time.Now()
		err = errors.Join(err, each(o.many, atOnce, func(i int) error { return e.down(ctx, fmt.Sprint(name, i), len(services)) }))
		downs = append(downs, time.Since(start))
		return up, err
	})
	if err != nil {
		return err
	}
	out.times(manyUp, inParallel, ups)
	out.times(manyDown, inParallel, downs)
	return nil
}

// one brings a project up and down.
func (e *engine) one(ctx context.Context, name, subnet string, parallel int) (up, down time.Duration, err error) {
	start := time.Now()
	err = e.up(ctx, name, subnet, parallel)
	up = time.Since(start)
	start = time.Now()
	err = errors.Join(err, e.down(ctx, name, parallel))
	return up, time.Since(start), err
}

// up makes a network and three containers on it, so many at once.
func (e *engine) up(ctx context.Context, name, subnet string, parallel int) error {
	if err := e.network(ctx, name, subnet); err != nil {
		return err
	}
	return each(len(services), parallel, func(i int) error {
		container := name + "." + services[i]
		if err := e.create(ctx, container, testimage.KV, name, services[i]); err != nil {
			return err
		}
		return e.start(ctx, container)
	})
}

// down stops what up started, and takes it away whatever became of it.
func (e *engine) down(ctx context.Context, name string, parallel int) error {
	ctx = context.WithoutCancel(ctx)
	err := each(len(services), parallel, func(i int) error { return e.stop(ctx, name+"."+services[i]) })
	return errors.Join(err, e.dropNetwork(ctx, name))
}

// each calls do for 0 to n-1, so many at once, and tells of the first failure when all have ended.
func each(n, parallel int, do func(i int) error) error {
	var group errgroup.Group
	group.SetLimit(parallel)
	for i := range n {
		group.Go(func() error { return do(i) })
	}
	return group.Wait()
}

// subnet is one that neither Docker's own pools nor the agents' pool have, so that nothing runs out.
func subnet(i int) string { return fmt.Sprintf("10.231.%d.%d/27", i/8, i%8*32) }
