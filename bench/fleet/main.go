// Command fleet measures one real cara-server with many simulated agents. The server is a process of its own, so that its
// processor time and its memory are its own. "make bench-fleet" runs it; docs/performance.md describes the figures.
//
// Each agent is a simulated node: it joins with a token, has a certificate and a connection of its own, and speaks the agents'
// protocol through the generated client. Its engine is an account of projects: what is assigned, runs at once. The projects
// come from git repositories, as they do for users.
//
// It stands outside the straight line, and looks at all of it except the engine. Invariants: every call is authenticated and over
// TLS, every write is synced, and nothing is left behind. Nothing asserts a time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caravanserai/cara/internal/test/testcluster"
)

// options are what the command line says.
type options struct {
	nodes, projects, perSource int
	sources, servers           int
	rate                       float64
	long                       time.Duration
	patience                   time.Duration
	ingress, json              bool
	only, bin                  string
}

func main() {
	var o options
	flag.IntVar(&o.nodes, "nodes", 100, "simulated nodes")
	flag.IntVar(&o.projects, "projects", 1000, "projects, all of them in git")
	flag.IntVar(&o.perSource, "per-source", 10_000, "projects of one source, at most 10,000")
	flag.IntVar(&o.sources, "sources", 100, "further sources, for the scene polls: each is polled every 30 s")
	flag.IntVar(&o.servers, "servers", 1, "servers: one has its state on Pebble, several have it on three members of etcd; their processor time and memory are added up")
	flag.Float64Var(&o.rate, "rate", 20, "changes of projects per second, for the scene rollouts")
	flag.DurationVar(&o.long, "long", 10*time.Second, "how long the scenes rest, rollouts and polls take")
	flag.DurationVar(&o.patience, "patience", 5*time.Minute, "how long a scene may take before the program gives up")
	flag.BoolVar(&o.ingress, "ingress", true, "give each project an ingress host")
	flag.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	flag.StringVar(&o.only, "only", "", "scenes after the start, separated by commas (default: all)")
	flag.StringVar(&o.bin, "bin", "", "directory with the programs (default: build them)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// validate returns an error for options that cannot be measured.
func (o options) validate() error {
	switch {
	case o.nodes < 1 || o.projects < 1 || o.perSource < 1 || o.perSource > 10_000 || o.sources < 1 || o.servers < 1:
		return errors.New("-nodes, -projects, -per-source, -sources and -servers must be at least 1, and -per-source at most 10,000")
	case o.rate <= 0 || o.long <= 0:
		return errors.New("-rate and -long must be more than 0")
	}
	for name := range strings.SplitSeq(o.only, ",") {
		if o.only != "" && !slices.ContainsFunc(scenes(), func(s scene) bool { return s.name == name }) {
			return fmt.Errorf("-only: there is no scene %q", name)
		}
	}
	return nil
}

// run starts the server, plays the scenes and prints what they cost.
func (o options) run(ctx context.Context) (err error) {
	if err := o.validate(); err != nil {
		return err
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	if need := uint64(3*o.nodes + 1000); files.Cur < need {
		return fmt.Errorf("%d nodes need %d open files, and the limit is %d: raise it (ulimit -n)", o.nodes, need, files.Cur)
	}
	dir, err := os.MkdirTemp("", "cara-fleet-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.bin == "" {
		o.bin = dir + "/bin"
		if err := testcluster.Build(ctx, o.bin); err != nil {
			return err
		}
	}
	f, err := o.open(ctx, dir)
	if err != nil {
		return err
	}
	rows, err := f.play(ctx)
	err = errors.Join(err, f.close(context.WithoutCancel(ctx)))
	return errors.Join(printRows(os.Stdout, rows, o.json), err)
}
