package loop

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// endless is the number of calls after which a busy loop is stopped, so that the test fails instead of hanging.
const endless = 100_000

// TestQueueIsNeverBusy: whatever Do does or causes, a key is processed a bounded number of times.
func TestQueueIsNeverBusy(t *testing.T) {
	failed := errors.New("no")
	for name, tt := range map[string]struct {
		do   func(q *Queue, key string) (time.Duration, error)
		most int32 // in ten minutes
	}{
		"asks for itself at once":           {func(*Queue, string) (time.Duration, error) { return time.Nanosecond, nil }, 20 + 10*60},
		"fails":                             {func(*Queue, string) (time.Duration, error) { return 0, failed }, 30},
		"fails, and causes a hint":          {func(q *Queue, key string) (time.Duration, error) { q.Add(key); return 0, failed }, 20 + 10*60},
		"causes a hint each time":           {func(q *Queue, key string) (time.Duration, error) { q.Add(key); return 0, nil }, burst + 10*60*refill + 1},
		"causes a hint and asks for itself": {func(q *Queue, key string) (time.Duration, error) { q.Add(key); return time.Nanosecond, nil }, burst + 10*60*refill + 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				var runs, others atomic.Int32
				var q *Queue
				q = NewQueue(QueueConfig{Workers: 2, Logger: slog.New(slog.DiscardHandler), Do: func(_ context.Context, key string) (time.Duration, error) {
					if key == "other" {
						others.Add(1)
						return 0, nil
					}
					<-time.After(time.Microsecond)
					if runs.Add(1) > endless {
						cancel()
					}
					return tt.do(q, key)
				}})
				q.Add("a")
				time.AfterFunc(5*time.Minute, func() { q.Add("other") })
				if err := q.Run(ctx); err != nil {
					t.Fatal(err)
				}
				if n := runs.Load(); n > tt.most || n < 2 {
					t.Errorf("worked on it %d times in ten minutes, want 2 to %d", n, tt.most)
				}
				if others.Load() != 1 {
					t.Errorf("another key was worked on %d times, want once", others.Load())
				}
			})
		})
	}
}

// TestQueueForgivesAKey: a busy key that then rests is processed immediately again, and uses no memory.
func TestQueueForgivesAKey(t *testing.T) {
	b, now := newBudget(), time.Unix(1_800_000_000, 0)
	for range 2 * burst {
		b.ask("a")
		b.end("a", true, true, now)
	}
	if wait, _ := b.begin("a", now); wait < time.Minute {
		t.Errorf("after %d failures at once it waits %s", 2*burst, wait)
	}
	now = now.Add(time.Hour)
	if wait, asked := b.begin("a", now); wait != 0 || !asked {
		t.Errorf("after an hour it waits %s, asked for: %v", wait, asked)
	}
	b.end("a", true, false, now)
	for i := range sweepEvery {
		b.end(string(rune('b'+i%20)), true, false, now.Add(time.Hour))
	}
	if len(b.keys) > 20 {
		t.Errorf("%d keys are remembered", len(b.keys))
	}
}

// TestMirrorIsNeverBusy: a watch that cannot be opened, or that ends immediately, is not reopened in a busy loop.
func TestMirrorIsNeverBusy(t *testing.T) {
	for name, script := range map[string]func() []any{
		"breaks at once":           func() []any { return []any{errors.New("connection reset")} },
		"breaks after its state":   func() []any { return []any{message(3, true, project("a", "3")), errors.New("connection reset")} },
		"has forgotten everything": func() []any { return []any{api.Errorf(codes.OutOfRange, "Gone", "revision is compacted")} },
		"forgets after every state": func() []any {
			return []any{message(3, true), api.Errorf(codes.OutOfRange, "Gone", "revision is compacted")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				opened := 0
				m := NewMirror(MirrorConfig{
					Client: watchFunc(func(ctx context.Context) grpc.ServerStreamingClient[carav1.WatchResponse] {
						if opened++; opened > endless {
							cancel()
						}
						return &fakeStream{ctx: ctx, script: script()}
					}),
					Kinds: []string{api.KindProject}, OnChange: func([]Change) {}, Logger: slog.New(slog.DiscardHandler),
				})
				if err := m.Run(ctx); err != nil {
					t.Fatal(err)
				}
				if most := 10*60/2 + 20; opened < 2 || opened > most {
					t.Errorf("the watch was opened %d times in ten minutes, want 2 to %d", opened, most)
				}
			})
		})
	}
}

// watchFunc opens streams.
type watchFunc func(ctx context.Context) grpc.ServerStreamingClient[carav1.WatchResponse]

func (f watchFunc) Watch(ctx context.Context, _ *carav1.WatchRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[carav1.WatchResponse], error) {
	return f(ctx), nil
}

// TestBackoffResetsAfterSuccessThatLasted: an attempt that succeeds and ends immediately waits like one that fails.
func TestBackoffResetsAfterSuccessThatLasted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBackoff(100*time.Millisecond, 5*time.Second)
		wait := func(lasted time.Duration) time.Duration {
			<-time.After(lasted)
			began := time.Now()
			b.Wait(t.Context())
			return time.Since(began)
		}
		attempts := 0
		for began := time.Now(); time.Since(began) < time.Minute; attempts++ {
			wait(time.Millisecond)
		}
		if attempts > 30 {
			t.Errorf("%d attempts in a minute", attempts)
		}
		if d := wait(5 * time.Second); d > 100*time.Millisecond {
			t.Errorf("after an attempt that lasted the next waits %s", d)
		}
	})
}
