package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/caravanserai/cara/agent/step"
)

// stopTurn is how long a stop keeps its slots. A longer stop waits for the container, which costs the engine nothing and
// must not block other stops.
const stopTurn = 2 * time.Second

// slots limits the agent's concurrent calls to the engine.
type slots struct {
	calls    chan struct{}       // one for each call that changes something
	stops    *semaphore.Weighted // one for each container that is being stopped
	maxStops int
}

func newSlots(cfg Config) *slots {
	return &slots{calls: make(chan struct{}, cfg.EngineCalls), stops: semaphore.NewWeighted(int64(cfg.Stops)), maxStops: cfg.Stops}
}

// turns assigns the slots to the actions of one pass, in order. Slow stops must not block starts, so stops have separate
// slots.
//
// A project acquires the slots for all its stops together, and projects do so one after the other. So if many projects end,
// they finish one after the other: the engine removes the network of one project, which it does one at a time, while the
// containers of the next one stop. If each stop queued separately, all projects would finish at the end.
type turns struct {
	slots *slots
	stops int // that have no slot yet
	taken int // acquired slots that are not in use yet
}

// turns counts the stops of a pass.
func (s *slots) turns(todo []step.Action, have *step.Have) *turns {
	t := &turns{slots: s}
	for _, x := range todo {
		if have.Stops(x) {
			t.stops++
		}
	}
	return t
}

// take waits for a slot for the next action. done releases it, and may be called more than once.
func (t *turns) take(ctx context.Context, x step.Action, have *step.Have) (done func(), err error) {
	if !have.Stops(x) {
		select {
		case t.slots.calls <- struct{}{}:
			return sync.OnceFunc(func() { <-t.slots.calls }), nil
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the engine: %w", ctx.Err())
		}
	}
	if t.taken == 0 {
		n := min(t.stops, t.slots.maxStops)
		if err := t.slots.stops.Acquire(ctx, int64(n)); err != nil {
			return nil, fmt.Errorf("wait for the engine: %w", err)
		}
		t.taken = n
	}
	t.taken--
	t.stops--
	release := sync.OnceFunc(func() { t.slots.stops.Release(1) })
	late := time.AfterFunc(stopTurn, release)
	return func() { late.Stop(); release() }, nil
}
