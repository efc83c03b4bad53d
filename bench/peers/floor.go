package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/internal/testimage"
)

// services are the names of the three services of every project that is measured.
var services = []string{"a", "b", "c"} //nolint:gochecknoglobals // never changed

// atOnce bounds what the bare engine is asked for at once when there are many projects.
const atOnce = 4

// How the bare engine is asked: which steps of a project's three services may overlap.
type asked struct {
	column          string
	creates, starts int // so many at once
}

func ways() []asked {
	all := len(services)
	return []asked{
		{column: inSequence, creates: 1, starts: 1},
		{column: inOrder, creates: all, starts: 1},
		{column: inParallel, creates: all, starts: all},
	}
}

// contestants are the bare engine, asked in each way.
func (e *engine) contestants() []contestant {
	var all []contestant
	for _, w := range ways() {
		all = append(all, contestant{
			column: w.column,
			up: func(ctx context.Context, names []string) error {
				return each(len(names), atOnce, func(i int) error { return e.up(ctx, w, names[i], subnet(i)) })
			},
			down: func(ctx context.Context, names []string) error {
				return each(len(names), atOnce, func(i int) error { return e.down(ctx, w, names[i]) })
			},
		})
	}
	return all
}

// up makes a network and three containers on it.
func (e *engine) up(ctx context.Context, w asked, name, subnet string) error {
	if err := e.network(ctx, name, subnet); err != nil {
		return err
	}
	create := func(i int) error {
		return e.create(ctx, name+"."+services[i], testimage.KV, name, services[i])
	}
	start := func(i int) error { return e.start(ctx, name+"."+services[i]) }
	if w.creates == w.starts {
		return each(len(services), w.creates, func(i int) error {
			if err := create(i); err != nil {
				return err
			}
			return start(i)
		})
	}
	if err := each(len(services), w.creates, create); err != nil {
		return err
	}
	return each(len(services), w.starts, start)
}

// down stops what up started, and takes it away whatever became of it.
func (e *engine) down(ctx context.Context, w asked, name string) error {
	err := each(len(services), w.creates, func(i int) error { return e.stop(ctx, name+"."+services[i]) })
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

// subnet is one that neither Docker's own pools nor the agents' pool have, so that nothing runs out. Each process has a
// few hundred of its own: the engine may keep one for good (see dropNetwork).
func subnet(i int) string {
	return fmt.Sprintf("10.%d.%d.%d/27", 240+os.Getpid()%8, os.Getpid()/8%8*32+i/8, i%8*32)
}
