package reconciler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/loop"
	"github.com/caravanserai/cara/plan"
)

// Config configures a Reconciler.
type Config struct {
	// Conn is the connection to the API, with the identity `system/reconciler`.
	Conn   grpc.ClientConnInterface
	Logger *slog.Logger
	// Metrics is optional.
	Metrics *loop.Metrics
	// Workers is the number of concurrent passes over different sources. The default is 4.
	Workers int
	// Resync is the longest time between two passes over a source. The default is 5 min.
	Resync time.Duration
	// Now is the wall clock. The default is time.Now.
	Now func() time.Time
}

// Validate checks the configuration.
func (c Config) Validate() error {
	switch {
	case c.Conn == nil:
		return errors.New("reconciler: Conn is required")
	case c.Logger == nil:
		return errors.New("reconciler: Logger is required")
	case c.Workers < 0 || c.Resync < 0:
		return errors.New("reconciler: Workers and Resync must not be negative")
	}
	return nil
}

// Reconciler makes the cluster match the sources.
type Reconciler struct {
	cfg      Config
	projects carav1.ProjectServiceClient
	sources  carav1.SourceServiceClient
	apply    carav1.ApplyServiceClient
	events   carav1.EventServiceClient
	mirror   *loop.Mirror
	queue    *loop.Queue
	index    *index
	decide   func(plan.Input) plan.Plan // plan.Diff; tests replace it to check that they catch errors

	mu       sync.Mutex
	memories map[string]*sourceMemory // by source; only the pass of that source uses the contents
}

// sourceMemory is what the passes over one source remember. The queue ensures that only one pass at a time uses it.
type sourceMemory struct {
	uid    string
	claims map[string]*plan.Memory
	// whole is when all rows were last checked.
	whole time.Time
	// seen is the revision of the newest write of this source's passes. A pass over an older state would repeat that write.
	seen int64
}

// New returns a Reconciler. It does nothing until Run.
func New(cfg Config) *Reconciler {
	cfg.Workers, cfg.Resync = cmp.Or(cfg.Workers, 4), cmp.Or(cfg.Resync, 5*time.Minute)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Reconciler{
		cfg: cfg, projects: carav1.NewProjectServiceClient(cfg.Conn), sources: carav1.NewSourceServiceClient(cfg.Conn),
		apply: carav1.NewApplyServiceClient(cfg.Conn), events: carav1.NewEventServiceClient(cfg.Conn),
		index: newIndex(), decide: plan.Diff, memories: map[string]*sourceMemory{},
	}
	r.mirror = loop.NewMirror(loop.MirrorConfig{
		Client:   carav1.NewWatchServiceClient(cfg.Conn),
		Kinds:    []string{api.KindSource, api.KindClaim, api.KindProject, api.KindOverride, api.KindTombstone},
		OnChange: r.changed, Wake: func(source string) { r.queue.Add(source) }, Logger: cfg.Logger,
	})
	r.queue = loop.NewQueue(loop.QueueConfig{
		Name: "reconciler", Workers: cfg.Workers, Do: r.pass, Metrics: cfg.Metrics, MinBackoff: 500 * time.Millisecond, Logger: cfg.Logger,
	})
	return r
}

// Run works until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.mirror.Run(ctx) })
	group.Go(func() error {
		if err := r.mirror.WaitSynced(ctx); err != nil {
			return nil // ctx ended before the first complete list
		}
		return r.queue.Run(ctx)
	})
	return group.Wait()
}

func (r *Reconciler) changed(changes []loop.Change) {
	for _, source := range r.index.change(changes) {
		r.queue.Add(source)
	}
}

func (r *Reconciler) memory(source string) *sourceMemory {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.memories[source]
	if m == nil {
		m = &sourceMemory{claims: map[string]*plan.Memory{}}
		r.memories[source] = m
	}
	return m
}

// pass processes one source: plan, apply, report.
func (r *Reconciler) pass(ctx context.Context, source string) (again time.Duration, err error) {
	m, now := r.memory(source), r.cfg.Now()
	if !r.mirror.Reached(m.seen, source) {
		return 0, nil
	}
	whole := now.Sub(m.whole) >= r.cfg.Resync || now.Before(m.whole)
	in, ok := r.index.input(source, m.claims, whole, now)
	if !ok {
		r.mu.Lock()
		delete(r.memories, source)
		r.mu.Unlock()
		return 0, nil
	}
	if m.uid != in.Source.Metadata.Uid {
		*m = sourceMemory{uid: in.Source.Metadata.Uid, claims: map[string]*plan.Memory{}}
		return time.Millisecond, nil // a new source of the same name: check all of it
	}
	if whole {
		m.whole = now
	}
	p := r.decide(in)
	done := r.execute(ctx, in, &p, m)
	err = errors.Join(done.err, r.report(ctx, in, &p, done))
	if err != nil {
		return 0, fmt.Errorf("reconcile source %s: %w", source, err)
	}
	return r.next(in.Now, &p, done), nil
}

// next returns when to process the source again if nothing changes.
func (r *Reconciler) next(now time.Time, p *plan.Plan, done *outcome) time.Duration {
	for _, res := range done.results {
		if !res.retry.IsZero() {
			p.Wake(res.retry)
		}
	}
	again := r.cfg.Resync
	if !p.Next.IsZero() {
		again = min(again, max(p.Next.Sub(now), time.Millisecond))
	}
	return again
}
