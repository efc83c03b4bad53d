package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/caravanserai/cara/agent/step"
)

// stopTurn is how long a stop keeps its slots: one that takes longer waits for the container, which costs the engine
// nothing, and must not keep others from stopping.
const stopTurn = 2 * time.Second

// slots bound what the agent asks of the engine at once.
type slots struct {
	calls    chan struct{}       // one for each call that changes something
	stops    *semaphore.Weighted // one for each container that is told to stop
	maxStops int
}

func newSlots(cfg Config) *slots {
	return &slots{calls: make(chan struct{}, cfg.EngineCalls), stops: semaphore.NewWeighted(int64(cfg.Stops)), maxStops: cfg.Stops}
}

// turns hands out the engine's slots to the actions of one pass, in their order. Containers that take their time to
// stop must not keep others from starting, so stops have slots of their own.
//
// A project takes the slots for all its stops at once, and projects take them one after the other. So where many
// projects end, one after the other is done with its containers, and the engine removes its network, which it does one at a
// time, while the next project's containers stop. Were each stop to queue alone, all projects would be done last.
type turns struct {
	slots *slots
	stops int // that have no slot yet
	taken int // slots for stops that are not in use yet
}

// turns counts what will be stopped.
func (s *slots) turns(todo []step.Action, have *step.Have) *turns {
	t := &turns{slots: s}
	for _, x := range todo {
		if have.Stops(x) {
			t.stops++
		}
	}
	return t
}

// take waits for the turn of the next action. done ends it, and may be called more than once.
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
