package loop

import (
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

// QueueConfig says how to work.
type QueueConfig struct {
	// Name of the queue, for logs and figures.
	Name string
	// Metrics count what the queue does; optional.
	Metrics *Metrics
	// Workers that run at the same time. The default is 1.
	Workers int
	// Do works on one key. An error means: again, with backoff; one of NeedsPerson means: again after SlowResync. A positive again means: again
	// after that long. A panic is an error of its key.
	Do func(ctx context.Context, key string) (again time.Duration, err error)
	// MinBackoff after the first failure (100 ms where it is 0), doubling up to MaxBackoff (1 min where it is 0).
	MinBackoff, MaxBackoff time.Duration
	// SlowResync is how long a key rests after an error that needs a person, unless it is added before. The default is 10 min.
	SlowResync time.Duration
	// Quiet tells of errors that are said elsewhere, once: they are retried like all others, and logged at debug level.
	Quiet  func(error) bool
	Logger *slog.Logger
}

// Queue works on keys: never on one twice at once, and again on one that was added meanwhile. No key can keep it busy, whatever Do returns and
// however often the key is added: see budget.
type Queue struct {
	cfg QueueConfig

	mu      sync.Mutex
	budget  *budget
	queue   workqueue.TypedRateLimitingInterface[string] // nil until Run
	waiting map[string]time.Time                         // what was added before Run, with when it is due
}

// NewQueue returns a queue that works once Run is called. Keys may be added before.
func NewQueue(cfg QueueConfig) *Queue {
	cfg.Workers = max(cfg.Workers, 1)
	if cfg.MinBackoff == 0 {
		cfg.MinBackoff = 100 * time.Millisecond
	}
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = time.Minute
	}
	if cfg.SlowResync == 0 {
		cfg.SlowResync = 10 * time.Minute
	}
	return &Queue{cfg: cfg, budget: newBudget(), waiting: map[string]time.Time{}}
}

// Add asks for work on a key, now.
func (q *Queue) Add(key string) { q.AddAfter(key, 0) }

// AddAfter asks for work on a key after d.
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

// Run works until ctx ends and every worker has returned.
func (q *Queue) Run(ctx context.Context) error {
	work := workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](q.cfg.MinBackoff, q.cfg.MaxBackoff), q.cfg.Metrics.queueConfig(q.cfg.Name))
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

// do works on one key. Whatever goes wrong with one key must not end the work on all others, so a panic becomes the key's error.
func (q *Queue) do(ctx context.Context, key string) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			q.cfg.Metrics.panicked(q.cfg.Name)
			q.cfg.Logger.Error("work panicked", "queue", q.cfg.Name, "key", key, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return q.cfg.Do(ctx, key)
}

// failed logs an error and says when the key is worked on again.
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
	q.cfg.Metrics.retried(q.cfg.Name)
	work.AddRateLimited(key)
}

// NeedsPerson marks an error that stays until a person changes something, such as a request that the server refuses as invalid: it is not
// retried until its key is added again, or a slow resync.
func NeedsPerson(err error) error {
	if err == nil {
		return nil
	}
	return needsPerson{err}
}

// Refused marks an error of the API by its code: one that says that the request itself is wrong needs a person.
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
