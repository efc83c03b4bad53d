// Command peers measures Cara on a real Docker engine beside what else could start the same containers there: the bare
// engine API, Docker Compose and Swarm. It prints one table; docs/performance.md explains it. "make bench" runs it.
//
// It stands outside the straight line and walks along all of it with the real programs. Invariants: each figure is the
// median of several runs that did the whole thing, of fresh names each time, with images that the engine has; what is
// compared is measured in the same run on the same machine; whatever happens, nothing of it is left in the engine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/caravanserai/cara/internal/testdocker"
	"github.com/caravanserai/cara/internal/testimage"
)

// options are what the command line says.
type options struct {
	runs, many, pending int
	idle                time.Duration
	bin, compose        string
	swarm               bool
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 7, "runs of what takes about a second; what takes longer is run a third as often")
	flag.IntVar(&o.many, "many", 20, "projects of the measures that start many at once")
	flag.IntVar(&o.pending, "pending", 1000, "projects that wait for a node while the server's processor and memory are looked at")
	flag.DurationVar(&o.idle, "idle", time.Minute, "how long processes are looked at while nothing happens; 0 leaves that out")
	flag.StringVar(&o.bin, "bin", "", "directory of cara-server, cara-agent and caractrl (default: build them)")
	flag.StringVar(&o.compose, "compose", "", "docker-compose of version 2 to measure too (see bench/compose)")
	flag.BoolVar(&o.swarm, "swarm", false, "measure docker stack deploy too, on an engine of its own")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the first signal cleans up, a second one ends the program
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// run measures, and prints what it has also where something failed on the way.
func (o options) run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "cara-bench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	host, err := testdocker.Find(ctx)
	if err != nil {
		return err
	}
	if err := testdocker.LoadImages(ctx, host, testimage.KV); err != nil {
		return err
	}
	out := newTable(os.Stdout)
	names := "bench" + strconv.FormatInt(int64(os.Getpid()), 36)
	defer out.print()

	e, err := openEngine(ctx, host)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s; each line is one run\n", e)
	c, err := o.openCluster(ctx, filepath.Join(dir, "cara"), host, e, names+"c")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.sweep(ctx), c.close(ctx)) }()
	all := append(e.contestants(), c.contestant())
	if o.compose != "" {
		all = append(all, compose{binary: o.compose, dir: dir, host: host}.contestant())
	}
	if o.swarm {
		s, swarmErr := openSwarm(ctx, dir)
		switch {
		case errors.Is(swarmErr, testdocker.ErrNoSecond) || errors.Is(swarmErr, errNoDocker):
			fmt.Fprintln(os.Stderr, "without Swarm:", swarmErr)
		case swarmErr != nil:
			return swarmErr
		default:
			defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
			all = append(all, s.contestant())
		}
	}
	return errors.Join(
		contest(ctx, all, names+"o", "1 x 3 services -> running", "1 x 3: delete -> gone", 1, o.runs, out),
		contest(ctx, all, names+"m", fmt.Sprintf("%d x 3 services -> running", o.many), fmt.Sprintf("%d x 3: delete -> gone", o.many), o.many, o.fewer(), out),
		o.alone(ctx, c, out),
	)
}

// fewer is how often what takes long is run.
func (o options) fewer() int { return max(1, o.runs/3) }
