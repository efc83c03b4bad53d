// Command peers measures Cara on a real Docker engine beside what else could start the same containers there: the bare
// engine API, Docker Compose and Swarm. It prints a table for each contest; docs/performance.md explains them. "make bench" runs it.
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
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	runs, many, pending int
	idle, press         time.Duration
	bin, compose        string
	only, file          string
	swarm               bool
	proxyTo             string
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 3, "runs of what takes about a second; what takes longer is run a third as often")
	flag.IntVar(&o.many, "many", 20, "projects of the contest that starts many at once")
	flag.IntVar(&o.pending, "pending", 1000, "projects that wait for a node while the server's processor and memory are looked at")
	flag.DurationVar(&o.idle, "idle", 20*time.Second, "how long processes are looked at while nothing happens")
	flag.DurationVar(&o.press, "press", 3*time.Second, "how long requests are sent through the ingress, each run")
	flag.StringVar(&o.bin, "bin", "", "directory of cara-server, cara-agent and caractrl (default: build them)")
	flag.StringVar(&o.compose, "compose", "docker-compose", "docker-compose of version 2 to measure too, where it is there (see bench/compose)")
	flag.BoolVar(&o.swarm, "swarm", true, "measure docker stack deploy too, on an engine of its own, where this machine can start one")
	flag.StringVar(&o.only, "only", "", "contests to hold, separated by commas (default: all): "+strings.Join(o.contestNames(), ", "))
	flag.StringVar(&o.file, "file", filepath.Join(os.TempDir(), "cara-peers.md"), "file that gets the tables, too, each as soon as it is there")
	flag.StringVar(&o.proxyTo, "proxy-to", "", "be a bare reverse proxy to this address and nothing else; the contest of the ingress starts itself so")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the first signal cleans up, a second one ends the program
	run := o.run
	if o.proxyTo != "" {
		run = func(ctx context.Context) error { return serveProxy(ctx, o.proxyTo) }
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// run holds the contests, and prints what it has of each also where something failed on the way.
func (o options) run(ctx context.Context) (err error) {
	chosen, err := o.chosen()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "cara-bench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file, err := os.Create(o.file)
	if err != nil {
		return fmt.Errorf("make the file of the tables: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	f, err := o.openField(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close(context.WithoutCancel(ctx))) }()
	out := &page{outs: []io.Writer{os.Stdout, file}}
	begun := time.Now()
	for _, c := range chosen {
		if ctx.Err() != nil {
			break
		}
		t := newTable()
		err = errors.Join(err, c.hold(ctx, o, f, t), out.print(t))
	}
	fmt.Fprintf(os.Stderr, "%s; the tables are in %s, too\n", time.Since(begun).Round(time.Second), o.file)
	return err
}

// fewer is how often what takes long is run.
func (o options) fewer() int { return max(1, o.runs/3) }
