package program

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/apiserver"
	"github.com/caravanserai/cara/gc"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/reconciler"
	"github.com/caravanserai/cara/scheduler"
	"github.com/caravanserai/cara/sources"
	"github.com/caravanserai/cara/sources/dir"
	"github.com/caravanserai/cara/sources/git"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/etcd"
)

// Each loop runs on one server at a time: the one that has its lease. A server waits for all leases, runs the loops whose leases
// it has, and goes on serving when it loses one. Nothing balances them: a server that has some waits a moment before it takes one more.

// runner is a loop: it blocks until its context ends.
type runner interface {
	Run(ctx context.Context) error
}

// build makes a loop that calls the server over a connection.
type build func(grpc.ClientConnInterface, *slog.Logger) (runner, error)

// loops returns the loops, by name.
func (c *ServerConfig) loops(queues *loop.Metrics) map[string]build {
	all := map[string]build{
		"sources": func(conn grpc.ClientConnInterface, log *slog.Logger) (runner, error) {
			cfg := sources.Config{
				Conn: conn, Logger: log, Metrics: queues, Dir: dir.New(dir.Config{}), Git: git.New(git.Config{AllowCIDRs: c.AllowSourceCIDRs, Proxy: c.SourceProxy}),
			}
			return sources.New(cfg), cfg.Validate()
		},
		"reconciler": func(conn grpc.ClientConnInterface, log *slog.Logger) (runner, error) {
			cfg := reconciler.Config{Conn: conn, Logger: log, Metrics: queues}
			return reconciler.New(cfg), cfg.Validate()
		},
		"scheduler": func(conn grpc.ClientConnInterface, log *slog.Logger) (runner, error) {
			cfg := scheduler.Config{Conn: conn, Logger: log, Metrics: queues, Strategy: scheduler.Strategy(c.Placement)}
			return scheduler.New(cfg), cfg.Validate()
		},
		"gc": func(conn grpc.ClientConnInterface, log *slog.Logger) (runner, error) {
			cfg := gc.Config{Conn: conn, Logger: log, Metrics: queues}
			return gc.New(cfg), cfg.Validate()
		},
	}
	if c.ACME.on() {
		all["certs"] = func(conn grpc.ClientConnInterface, log *slog.Logger) (runner, error) {
			return c.obtainer(conn, log, queues)
		}
	}
	return all
}

// lease is the permission to run one loop.
type lease interface {
	// Condition returns the condition of the loop's transactions; the zero Lease for a server alone.
	Condition() store.Lease
	// Lost is closed when the loop must end.
	Lost() <-chan struct{}
	// Release lets another server run the loop, which has ended.
	Release()
}

// acquire waits until no other server runs a loop, and returns the lease to run it here.
type acquire func(ctx context.Context, loop string) (lease, error)

// noLease is the lease of a server alone. It is never lost.
type noLease struct{}

func (noLease) Condition() store.Lease { return store.Lease{} }
func (noLease) Lost() <-chan struct{}  { return nil }
func (noLease) Release()               {}

// withoutLease returns a lease without waiting: a server alone runs all its loops.
func withoutLease(context.Context, string) (lease, error) { return noLease{}, nil }

// loopSet is all loops of a server, and how it gets their leases.
type loopSet struct {
	loops          map[string]build
	acquire        acquire
	severalServers bool // there may be other servers
}

// extraWork is what a server does under the lease of a loop, in addition to the loop. A server alone does it anyway: see apiserver.Run.
type extraWork struct {
	before func(context.Context) error // before the loop begins
	during func(context.Context) error // while the loop runs
}

// extra returns the extra work of a loop.
func (s loopSet) extra(name string, server *apiserver.Server) extraWork {
	switch {
	case !s.severalServers:
		return extraWork{}
	case name == "sources":
		return extraWork{before: server.Settle}
	case name == "reconciler":
		return extraWork{during: server.Keep}
	}
	return extraWork{}
}

// task is one loop of this server.
type task struct {
	name    string
	connect func(loop string, condition store.Lease) (grpc.ClientConnInterface, error)
	build   build
	extra   extraWork
	log     *slog.Logger
}

// runWhenLeased runs the loop whenever this server has its lease, until ctx ends or the loop fails.
func (t task) runWhenLeased(ctx context.Context, acquire acquire) error {
	for {
		l, err := acquire(ctx, t.name)
		if ctx.Err() != nil {
			if l != nil {
				l.Release()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: wait for the lease: %w", t.name, err)
		}
		err = t.runOnce(ctx, l)
		l.Release()
		if err != nil || ctx.Err() != nil {
			return err
		}
		t.log.Warn("this server has lost its lease (it was paused, cut off from etcd, or another server took it): another one may run this loop now")
	}
}

// runOnce runs the loop until ctx ends or the lease is lost.
func (t task) runOnce(ctx context.Context, l lease) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-l.Lost():
			stop()
		case <-ctx.Done():
		}
	}()
	conn, err := t.connect(t.name, l.Condition())
	if err != nil {
		return err
	}
	r, err := t.build(conn, t.log)
	if err != nil {
		return err
	}
	if condition := l.Condition(); condition != (store.Lease{}) {
		t.log.Info("this server runs the loop", "lease", condition.Created)
	}
	if err := t.runWithExtra(store.WithLease(ctx, l.Condition()), r); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	return nil
}

// runWithExtra runs the loop and its extra work.
func (t task) runWithExtra(ctx context.Context, r runner) error {
	if t.extra.before != nil {
		t.retry(ctx, t.extra.before)
	}
	if t.extra.during == nil || ctx.Err() != nil {
		return r.Run(ctx)
	}
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return r.Run(ctx) })
	both.Go(func() error { t.retry(ctx, t.extra.during); return nil })
	return both.Wait()
}

// retry does something until it succeeds or ctx ends. What fails is a write, because etcd does not answer or the lease is lost.
func (t task) retry(ctx context.Context, do func(context.Context) error) {
	wait := loop.NewBackoff(time.Second, time.Minute)
	for err := do(ctx); err != nil && ctx.Err() == nil; err = do(ctx) {
		t.log.Warn("work that belongs to a loop is not done yet", "error", err)
		wait.Wait(ctx)
	}
}

// etcdLeases gets the leases of a server's loops from etcd.
type etcdLeases struct {
	db     *etcd.Store
	server string // its ID
	log    *slog.Logger

	mu    sync.Mutex
	count int // leases that this server has or is about to take
}

// delay is how long a server with this number of leases leaves one more to others, so that the loops spread over the servers.
func delay(leases int) time.Duration { return time.Duration(leases) * 100 * time.Millisecond }

func (e *etcdLeases) acquire(ctx context.Context, loop string) (lease, error) {
	a, waits := &attempt{of: e}, waiting{log: e.log.With("room", loop)}
	l, err := e.db.Acquire(ctx, loop, etcd.Candidate{
		Server: e.server, Delay: a.begin,
		Waiting: func(holder string, err error) {
			a.end()
			waits.tell(holder, err)
		},
	})
	if err != nil {
		a.end()
		return nil, err
	}
	return heldLease{l, a}, nil
}

// waiting tells why a loop does not run here.
type waiting struct {
	log  *slog.Logger
	told string // the last error that was told
}

func (w *waiting) tell(holder string, err error) {
	if err == nil {
		w.told = ""
		w.log.Debug("another server runs the loop", "server", holder)
		return
	}
	if w.told != err.Error() {
		w.told = err.Error()
		w.log.Warn("this server cannot take over the loop: its work waits unless another server runs it", "error", err)
	}
}

// attempt is one lease that this server has or is about to take. etcdLeases counts it between begin and end.
type attempt struct {
	of      *etcdLeases
	counted bool // guarded by of.mu
}

// begin counts the attempt, once, and returns how long the lease is left to others.
func (a *attempt) begin() time.Duration {
	a.end()
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	a.counted = true
	a.of.count++
	return delay(a.of.count - 1)
}

// end stops counting the attempt.
func (a *attempt) end() {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	if a.counted {
		a.counted = false
		a.of.count--
	}
}

// heldLease is a lease in etcd that this server has.
type heldLease struct {
	*etcd.Lease
	attempt *attempt
}

// Condition returns the condition of the loop's transactions.
func (h heldLease) Condition() store.Lease { return h.Lease.Lease }

// Release gives the lease back.
func (h heldLease) Release() {
	h.attempt.end()
	h.Lease.Release()
}
