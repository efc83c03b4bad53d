package loop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/util/workqueue"

	"github.com/caravanserai/cara/api"
)

// QueueConfig configures a Queue.
type QueueConfig struct {
	// Name of the queue in logs and metrics.
	Name string
	// Metrics is optional.
	Metrics *Metrics
	// Workers is the number of concurrent workers. The default is 1.
	Workers int
	// Do processes one key. After an error the key is retried with backoff, or after SlowResync if the error is from
	// NeedsPerson. If again is positive, the key is processed again after that time. A panic counts as an error of its key.
	Do func(ctx context.Context, key string) (again time.Duration, err error)
	// MinBackoff is the wait after the first failure (default 100 ms). It doubles up to MaxBackoff (default 1 min).
	MinBackoff, MaxBackoff time.Duration
	// SlowResync is how long a key waits after an error that needs a person, unless it is added earlier. The default is 10 min.
	SlowResync time.Duration
	// Quiet reports errors that are already reported elsewhere. They are retried as usual but logged at debug level.
	Quiet  func(error) bool
	Logger *slog.Logger
}

// Queue processes keys. It never processes a key twice concurrently, and processes a key again if it was added during its
// run. The budget keeps one key from occupying the queue, whatever Do returns and however often the key is added.
type Queue struct {
	cfg QueueConfig

	mu      sync.Mutex
	budget  *budget
	queue   workqueue.TypedRateLimitingInterface[string] // nil until Run
	waiting map[string]time.Time                         // keys added before Run, with their due times
}

// NewQueue returns a queue that starts with Run. Keys may be added before.
func NewQueue(cfg QueueConfig) *Queue {
	cfg.Workers = max(cfg.Workers, 1)
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics() // nobody reads it
	}
	cfg.MinBackoff = cmp.Or(cfg.MinBackoff, 100*time.Millisecond)
	cfg.MaxBackoff = cmp.Or(cfg.MaxBackoff, time.Minute)
	cfg.SlowResync = cmp.Or(cfg.SlowResync, 10*time.Minute)
	return &Queue{cfg: cfg, budget: newBudget(), waiting: map[string]time.Time{}}
}

// Add requests that a key be processed now.
func (q *Queue) Add(key string) { q.AddAfter(key, 0) }

// AddAfter requests that a key be processed after d.
func (q *Queue) AddAfter(key string, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.budget.ask(key)
	if q.queue != nil {
		q.queue.AddAfter(key, d)
		return
	}
	due := time.Now().Add(d)
	if at, ok := q.waiting[key]; !ok || due.Before(at) {
		q.waiting[key] = due
	}
}

// Run processes keys until ctx ends and every worker has returned.
func (q *Queue) Run(ctx context.Context) error {
	work := workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](q.cfg.MinBackoff, q.cfg.MaxBackoff),
		workqueue.TypedRateLimitingQueueConfig[string]{Name: q.cfg.Name, MetricsProvider: provider{q.cfg.Metrics}})
	q.mu.Lock()
	q.queue = work
	for key, due := range q.waiting {
		work.AddAfter(key, time.Until(due))
	}
	q.waiting = nil
	q.mu.Unlock()

	stop := context.AfterFunc(ctx, work.ShutDown)
	defer stop()
	var workers sync.WaitGroup
	for range q.cfg.Workers {
		workers.Go(func() {
			for q.next(ctx, work) {
			}
		})
	}
	workers.Wait()
	return nil
}

func (q *Queue) next(ctx context.Context, work workqueue.TypedRateLimitingInterface[string]) bool {
	key, shutdown := work.Get()
	if shutdown {
		return false
	}
	defer work.Done(key)
	if ctx.Err() != nil {
		return true // shutting down: drain without working
	}
	q.mu.Lock()
	wait, asked := q.budget.begin(key, time.Now())
	q.mu.Unlock()
	if wait > 0 {
		work.AddAfter(key, wait)
		return true
	}
	again, err := q.do(ctx, key)
	q.mu.Lock()
	q.budget.end(key, asked, err != nil, time.Now())
	q.mu.Unlock()
	switch {
	case err != nil && ctx.Err() == nil:
		q.failed(ctx, work, key, err)
	case err == nil:
		work.Forget(key)
		if again > 0 {
			work.AddAfter(key, again)
		}
	}
	return true
}

// do processes one key. It turns a panic into an error of the key, so that one key cannot stop the others.
func (q *Queue) do(ctx context.Context, key string) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			q.cfg.Metrics.panics.WithLabelValues(q.cfg.Name).Inc()
			q.cfg.Logger.Error("work panicked", "queue", q.cfg.Name, "key", key, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return q.cfg.Do(ctx, key)
}

// failed logs an error and schedules the retry.
func (q *Queue) failed(ctx context.Context, work workqueue.TypedRateLimitingInterface[string], key string, err error) {
	if _, person := errors.AsType[needsPerson](err); person {
		q.cfg.Logger.Warn("work needs a person", "queue", q.cfg.Name, "key", key, "again_in", q.cfg.SlowResync, "error", err)
		work.Forget(key)
		work.AddAfter(key, q.cfg.SlowResync)
		return
	}
	level := slog.LevelWarn
	if q.cfg.Quiet != nil && q.cfg.Quiet(err) {
		level = slog.LevelDebug
	}
	q.cfg.Logger.Log(ctx, level, "work failed, will retry", "queue", q.cfg.Name, "key", key, "retries", work.NumRequeues(key), "error", err)
	q.cfg.Metrics.retries.WithLabelValues(q.cfg.Name).Inc()
	work.AddRateLimited(key)
}

// NeedsPerson marks an error that persists until a person changes something, such as a request that the server rejects as
// invalid. Its key is retried only after SlowResync or when it is added again.
func NeedsPerson(err error) error {
	if err == nil {
		return nil
	}
	return needsPerson{err}
}

// Refused marks an API error with NeedsPerson if its code means that the request itself is wrong.
func Refused(err error) error {
	switch api.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented:
		return NeedsPerson(err)
	default:
		return err
	}
}

type needsPerson struct{ error }

func (e needsPerson) Unwrap() error { return e.error }
