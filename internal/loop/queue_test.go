package loop

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func runQueue(t *testing.T, cfg QueueConfig) (*Queue, func()) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	q := NewQueue(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := q.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	return q, func() { cancel(); <-done }
}

func TestQueueNeverWorksOnAKeyTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, ran, twice atomic.Int32
		q, stop := runQueue(t, QueueConfig{Workers: 8, Do: func(context.Context, string) (time.Duration, error) {
			if running.Add(1) > 1 {
				twice.Add(1)
			}
			<-time.After(time.Second)
			running.Add(-1)
			ran.Add(1)
			return 0, nil
		}})
		q.Add("a")
		synctest.Wait()
		for range 10 {
			q.Add("a") // while it is worked on: once more afterwards, not ten times
		}
		<-time.After(time.Minute)
		stop()
		if ran.Load() != 2 || twice.Load() != 0 {
			t.Errorf("ran %d times, %d times at once; want 2 and 0", ran.Load(), twice.Load())
		}
	})
}

func TestQueueRetriesWithBackoffAndForgetsAfterSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Duration
		start := time.Now()
		q, stop := runQueue(t, QueueConfig{MinBackoff: time.Second, Do: func(context.Context, string) (time.Duration, error) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(start).Round(time.Second))
			if len(at) < 4 {
				return 0, errors.New("not yet")
			}
			return 0, nil
		}})
		q.Add("a")
		<-time.After(time.Hour)
		stop()
		want := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second}
		if len(at) != len(want) {
			t.Fatalf("worked at %v, want %v", at, want)
		}
		for i := range want {
			if at[i] != want[i] {
				t.Errorf("worked at %v, want %v", at, want)
			}
		}
	})
}

func TestQueueKeepsWhatWasAddedBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got atomic.Int32
		q := NewQueue(QueueConfig{Logger: slog.New(slog.DiscardHandler), Do: func(context.Context, string) (time.Duration, error) {
			got.Add(1)
			return 0, nil
		}})
		q.Add("a")
		q.AddAfter("b", time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := q.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got.Load() != 2 {
			t.Errorf("worked on %d keys, want 2", got.Load())
		}
	})
}
