// Package slots limits the concurrent calls of an agent to its engine. The agent's actor takes a slot before each action. Starts
// and stops have separate slots, so that slow stops never block starts.
package slots

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

// Pool limits the agent's concurrent calls to the engine.
type Pool struct {
	calls    chan struct{}       // one for each call that changes something
	stops    *semaphore.Weighted // one for each container that is being stopped
	maxStops int
}

// New returns a pool for so many calls, and for so many containers that are being stopped.
func New(calls, stops int) *Pool {
	return &Pool{calls: make(chan struct{}, calls), stops: semaphore.NewWeighted(int64(stops)), maxStops: stops}
}

// Turns assigns the slots to the actions of one pass, in order. Slow stops must not block starts, so stops have separate
// slots.
//
// A project acquires the slots for all its stops together, and projects do so one after the other. So if many projects end,
// they finish one after the other: the engine removes the network of one project, which it does one at a time, while the
// containers of the next one stop. If each stop queued separately, all projects would finish at the end.
type Turns struct {
	slots *Pool
	stops int // that have no slot yet
	taken int // acquired slots that are not in use yet
}

// Turns counts the stops of a pass.
func (s *Pool) Turns(todo []step.Action, have *step.Have) *Turns {
	t := &Turns{slots: s}
	for _, x := range todo {
		if have.Stops(x) {
			t.stops++
		}
	}
	return t
}

// Take waits for a slot for the next action. done releases it, and may be called more than once.
func (t *Turns) Take(ctx context.Context, x step.Action, have *step.Have) (done func(), err error) {
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
