package apiserver

import (
	"context"
	"net/netip"
	"sync"
)

// turns bounds what strangers may do side by side: so many in all, and so many from one address, so that one address
// cannot keep out the others. Who comes too many waits for a turn.
type turns struct {
	all, each int

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of what follows
	taken   int
	from    map[netip.Prefix]int
}

func newTurns(all, each int) *turns {
	return &turns{all: all, each: each, changed: make(chan struct{}), from: map[netip.Prefix]int{}}
}

// take waits for a turn. The error is that of ctx.
func (t *turns) take(ctx context.Context, from netip.Prefix) error {
	for {
		t.mu.Lock()
		if t.taken < t.all && t.from[from] < t.each {
			t.taken++
			t.from[from]++
			t.mu.Unlock()
			return nil
		}
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// done gives a turn back.
func (t *turns) done(from netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken--
	if t.from[from]--; t.from[from] == 0 {
		delete(t.from, from)
	}
	close(t.changed)
	t.changed = make(chan struct{})
}
