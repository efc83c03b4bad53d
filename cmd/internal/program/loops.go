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
// it has, and goes on serving when it loses one. Nothing balances them: a server that has some hesitates before it takes one more.

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

// right is the permission to run one loop.
type right interface {
	// Is returns what the loop's transactions have as a condition.
	Is() store.Lease
	// Lost is closed when the loop must end.
	Lost() <-chan struct{}
	// Release lets another server run the loop, which has ended.
	Release()
}

// rights gives a server the right to run a loop. It waits until no other server runs it.
type rights func(ctx context.Context, loop string) (right, error)

// sole is the right of a server that has no others beside it.
type sole struct{}

func (sole) Is() store.Lease       { return store.Lease{} }
func (sole) Lost() <-chan struct{} { return nil }
func (sole) Release()              {}

// alone gives all rights at once.
func alone(context.Context, string) (right, error) { return sole{}, nil }

// work is all loops, and what gives the rights to run them.
type work struct {
	loops  map[string]build
	rights rights
	beside bool // there are other servers
}

// companions are what a server does under the lease of a loop, beside the loop. A server alone does it anyway: see apiserver.Run.
type companions struct {
	first func(context.Context) error // before the loop begins
	while func(context.Context) error // while the loop runs
}

// with returns what belongs to a loop.
func (w work) with(name string, server *apiserver.Server) companions {
	switch {
	case !w.beside:
		return companions{}
	case name == "sources":
		return companions{first: server.Settle}
	case name == "reconciler":
		return companions{while: server.Keep}
	}
	return companions{}
}

// task is one loop of this server.
type task struct {
	name    string
	connect func(loop string, lease store.Lease) (grpc.ClientConnInterface, error)
	build   build
	with    companions
	log     *slog.Logger
}

// always runs the loop whenever this server has the right to, until ctx ends or the loop fails.
func (t task) always(ctx context.Context, acquire rights) error {
	for {
		r, err := acquire(ctx, t.name)
		if ctx.Err() != nil {
			if r != nil {
				r.Release()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: wait for the right to run: %w", t.name, err)
		}
		err = t.term(ctx, r)
		r.Release()
		if err != nil || ctx.Err() != nil {
			return err
		}
		t.log.Warn("this server has lost its lease (it was paused, cut off from etcd, or another server took it): another one may run this loop now")
	}
}

// term runs the loop until ctx ends or the right is lost.
func (t task) term(ctx context.Context, r right) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-r.Lost():
			stop()
		case <-ended:
		}
	}()
	conn, err := t.connect(t.name, r.Is())
	if err != nil {
		return err
	}
	l, err := t.build(conn, t.log)
	if err != nil {
		return err
	}
	if lease := r.Is(); lease != (store.Lease{}) {
		t.log.Info("this server runs the loop", "lease", lease.Created)
	}
	if err := t.run(store.WithLease(ctx, r.Is()), l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	return nil
}

// run runs the loop and what belongs to it.
func (t task) run(ctx context.Context, l runner) error {
	if t.with.first != nil {
		t.until(ctx, t.with.first)
	}
	if t.with.while == nil || ctx.Err() != nil {
		return l.Run(ctx)
	}
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return l.Run(ctx) })
	both.Go(func() error { t.until(ctx, t.with.while); return nil })
	return both.Wait()
}

// until does something until it succeeds or ctx ends. What fails is a write, because etcd does not answer or the lease is lost.
func (t task) until(ctx context.Context, do func(context.Context) error) {
	wait := loop.NewBackoff(time.Second, time.Minute)
	for err := do(ctx); err != nil && ctx.Err() == nil; err = do(ctx) {
		t.log.Warn("work that belongs to a loop is not done yet", "error", err)
		wait.Wait(ctx)
	}
}

// shares gives the rights that are leases in etcd.
type shares struct {
	db     *etcd.Store
	server string // its ID
	log    *slog.Logger

	mu  sync.Mutex
	has int // leases that this server has or is about to take
}

// hesitation is how long a server that has some loops leaves one more to others, so that the loops spread over the servers.
func hesitation(has int) time.Duration { return time.Duration(has) * 100 * time.Millisecond }

func (s *shares) acquire(ctx context.Context, loop string) (right, error) {
	b, waits := &bid{s: s}, waiting{log: s.log.With("room", loop)}
	lease, err := s.db.Acquire(ctx, loop, etcd.Candidate{
		Server: s.server, Hesitate: b.hesitate,
		Waiting: func(holder string, err error) {
			b.withdraw()
			waits.tell(holder, err)
		},
	})
	if err != nil {
		b.withdraw()
		return nil, err
	}
	return share{lease, b}, nil
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

// bid is the wish of this server for one loop, or its right to it.
type bid struct {
	s       *shares
	counted bool // guarded by s.mu
}

// hesitate counts the bid and returns how long the loop is left to others.
func (b *bid) hesitate() time.Duration {
	b.withdraw()
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.counted = true
	b.s.has++
	return hesitation(b.s.has - 1)
}

// withdraw does not count the bid any more.
func (b *bid) withdraw() {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.counted {
		b.counted = false
		b.s.has--
	}
}

// share is a lease in etcd.
type share struct {
	*etcd.Lease
	bid *bid
}

// Is returns the condition of the loop's transactions.
func (s share) Is() store.Lease { return s.Lease.Lease }

// Release gives the lease back.
func (s share) Release() {
	s.bid.withdraw()
	s.Lease.Release()
}
