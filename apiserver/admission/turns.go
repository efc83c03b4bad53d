package admission

import (
	"context"
	"errors"
	"net/netip"
	"sync"
)

// maxWaiting is how many wait for one sort of turn.
const maxWaiting = 512

// Turns bounds what strangers may do side by side: so many in all, and so many from one address, so that one address
// cannot keep out the others. Who comes too many waits for a turn, and at most maxWaiting may wait.
type Turns struct {
	all, each int

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of what follows
	taken   int
	waiting int
	from    map[netip.Prefix]int
}

// NewTurns allows all turns at a time, and each of them to one address.
func NewTurns(all, each int) *Turns {
	return &Turns{all: all, each: each, changed: make(chan struct{}), from: map[netip.Prefix]int{}}
}

// errTooManyWait is the answer to one more who would have to wait.
var errTooManyWait = errors.New("too many wait for a turn")

// Take waits for a turn. The error is that of ctx, or errTooManyWait.
func (t *Turns) Take(ctx context.Context, from netip.Prefix) error {
	for {
		t.mu.Lock()
		if t.taken < t.all && t.from[from] < t.each {
			t.taken++
			t.from[from]++
			t.mu.Unlock()
			return nil
		}
		if t.waiting >= maxWaiting {
			t.mu.Unlock()
			return errTooManyWait
		}
		t.waiting++
		changed := t.changed
		t.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		}
		t.mu.Lock()
		t.waiting--
		t.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// Done gives a turn back.
func (t *Turns) Done(from netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken--
	if t.from[from]--; t.from[from] == 0 {
		delete(t.from, from)
	}
	close(t.changed)
	t.changed = make(chan struct{})
}
