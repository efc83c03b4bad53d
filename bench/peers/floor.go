package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/internal/test/testimage"
)

// atOnce bounds what the bare engine is asked for at once when there are many projects.
const atOnce = 4

// asked is how the bare engine is asked: which steps of a project's services may overlap.
type asked struct {
	column          string
	creates, starts bool
}

func ways() []asked {
	return []asked{{inSequence, false, false}, {inOrder, true, false}, {inParallel, true, true}}
}

// contestants are the bare engine, asked in each way.
func (e *engine) contestants() []contestant {
	var all []contestant
	for _, w := range ways() {
		all = append(all, contestant{
			column: w.column,
			up: func(ctx context.Context, s shape, names []string) error {
				return each(len(names), atOnce, func(i int) error { return e.up(ctx, w, s, names[i], subnet(i)) })
			},
			down: func(ctx context.Context, s shape, names []string) error {
				return each(len(names), atOnce, func(i int) error { return e.down(ctx, w, s, names[i]) })
			},
		})
	}
	return all
}

// up makes a network and containers on it.
func (e *engine) up(ctx context.Context, w asked, s shape, name, subnet string) error {
	if err := e.network(ctx, name, subnet); err != nil {
		return err
	}
	services := s.names()
	create := func(i int) error { return e.create(ctx, name+"."+services[i], testimage.KV, name, services[i]) }
	start := func(i int) error { return e.start(ctx, name+"."+services[i]) }
	if w.creates == w.starts {
		return each(len(services), among(w.creates, services), func(i int) error {
			if err := create(i); err != nil {
				return err
			}
			return start(i)
		})
	}
	if err := each(len(services), among(w.creates, services), create); err != nil {
		return err
	}
	return each(len(services), among(w.starts, services), start)
}

// down stops what up started, and takes it away whatever became of it.
func (e *engine) down(ctx context.Context, w asked, s shape, name string) error {
	services := s.names()
	err := each(len(services), among(w.creates, services), func(i int) error { return e.stop(ctx, name+"."+services[i]) })
	return errors.Join(err, e.dropNetwork(ctx, name))
}

// among is how many of a project's services are dealt with at once.
func among(parallel bool, services []string) int {
	if parallel {
		return len(services)
	}
	return 1
}

// back kills a container and starts it again once it has ended: nobody can do that faster.
func (e *engine) back(ctx context.Context, name string) (time.Duration, error) {
	start := time.Now()
	if err := e.kill(ctx, name); err != nil {
		return 0, err
	}
	if err := e.call(ctx, http.MethodPost, "/containers/"+name+"/wait", nil, nil); err != nil {
		return 0, err
	}
	err := e.start(ctx, name)
	return time.Since(start), err
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
