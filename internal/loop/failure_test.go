package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestQueueSurvivesPanics: a panic is its key's error, backed off like others, and other keys go on.
func TestQueueSurvivesPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		worked := map[string]int{}
		var logged strings.Builder
		metrics := NewMetrics()
		q := NewQueue(QueueConfig{
			Name: "test", Metrics: metrics, MinBackoff: time.Second, Logger: slog.New(slog.NewTextHandler(&logged, nil)),
			Do: func(_ context.Context, key string) (time.Duration, error) {
				worked[key]++
				if key == "bad" && worked[key] < 3 {
					panic("no such index")
				}
				return 0, nil
			},
		})
		q.Add("bad")
		q.AddAfter("good", 500*time.Millisecond)
		run(t, q, time.Minute)
		if worked["bad"] != 3 || worked["good"] != 1 {
			t.Errorf("worked on %v, want bad 3 times and good once", worked)
		}
		for _, want := range []string{"work panicked", "key=bad", "no such index", "failure_test.go", "retries=1"} {
			if !strings.Contains(logged.String(), want) {
				t.Errorf("the log has no %q:\n%s", want, logged.String())
			}
		}
		figures := gathered(t, metrics)
		for name, want := range map[string]float64{"adds_total": 4, "retries_total": 2, "panics_total": 2, "depth": 0, "latency_seconds": 4, "work_seconds": 4} {
			if figures["cara_queue_"+name] != want {
				t.Errorf("cara_queue_%s is %v, want %v", name, figures["cara_queue_"+name], want)
			}
		}
	})
}

// TestQueueLeavesToPeople: an error that needs a person is not retried until its key is added, or the slow resync.
func TestQueueLeavesToPeople(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		q := NewQueue(QueueConfig{SlowResync: time.Hour, Logger: slog.New(slog.DiscardHandler), Do: func(context.Context, string) (time.Duration, error) {
			at = append(at, time.Since(began))
			return 0, fmt.Errorf("wrapped: %w", NeedsPerson(errors.New("the spec is invalid")))
		}})
		q.Add("a")
		time.AfterFunc(10*time.Minute, func() { q.Add("a") })
		run(t, q, 65*time.Minute)
		if got, want := fmt.Sprint(at), "[0s 10m0s 1h0m0s]"; got != want {
			t.Errorf("worked at %s, want %s", got, want)
		}
	})
}

func run(t *testing.T, q *Queue, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := q.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// gathered returns the figures by name: values of gauges and counters, counts of histograms.
func gathered(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			out[f.GetName()] += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

// TestReached: what OnChange derives is never behind the revision that Reached answers for, and Wake comes once, after it.
func TestReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream := &stepStream{ctx: t.Context(), next: make(chan *carav1.WatchResponse)}
		var order []string
		note := func(what string) { order = append(order, what) }
		var m *Mirror
		m = NewMirror(MirrorConfig{
			Client: stream, Kinds: []string{"Project"}, Logger: slog.New(slog.DiscardHandler),
			OnChange: func([]Change) {
				note("change")
				if m.mu.TryRLock() {
					t.Error("somebody can ask the mirror before OnChange is done")
					m.mu.RUnlock()
				}
			},
			Wake: func(key string) { note("wake " + key) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = m.Run(ctx) }()
		stream.next <- message(5, true)
		synctest.Wait()
		if !m.Reached(5, "a") || m.Reached(7, "a") || m.Reached(7, "b") || m.Reached(9, "c") {
			t.Error("at revision 5 it reached another one than 5")
		}
		stream.next <- message(6, false)
		stream.next <- message(7, false, project("p", "7"))
		synctest.Wait()
		if !m.Reached(7, "d") {
			t.Error("at revision 7 it did not reach 7")
		}
		cancel()
		<-done
		slices.Sort(order[min(1, len(order)):]) // keys wake in any order
		if got, want := strings.Join(order, ", "), "change, wake a, wake b"; got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	})
}

// stepStream is a watch that sends what the test provides.
type stepStream struct {
	grpc.ClientStream
	ctx  context.Context
	next chan *carav1.WatchResponse
}

func (s *stepStream) Watch(ctx context.Context, _ *carav1.WatchRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[carav1.WatchResponse], error) {
	return &stepStream{ctx: ctx, next: s.next}, nil
}

func (s *stepStream) Recv() (*carav1.WatchResponse, error) {
	select {
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	case r := <-s.next:
		return r, nil
	}
}

// TestRefused: only an error that means an invalid request needs a person.
func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"invalid":     {fmt.Errorf("bind: %w", api.BadRequest("no")), true},
		"forbidden":   {api.Forbidden("no"), true},
		"unknown rpc": {api.Unimplemented("no"), true},
		"conflict":    {api.Conflict("no"), false},
		"away":        {api.Unavailable("no"), false},
		"bug":         {errors.New("no"), false},
		"none":        {nil, false},
	} {
		if _, got := errors.AsType[needsPerson](Refused(tt.err)); got != tt.want {
			t.Errorf("%s: needs a person is %v, want %v", name, got, tt.want)
		}
	}
}
