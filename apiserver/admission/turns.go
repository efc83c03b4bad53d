package admission

import (
	"context"
	"errors"
	"net/netip"
	"sync"
)

// maxWaiting is how many callers may wait for one kind of turn.
const maxWaiting = 512

// Turns limits what unauthenticated callers do concurrently, in total and for each address, so that one address cannot
// block the others. A caller above the limit waits for a turn. At most maxWaiting callers wait.
type Turns struct {
	all, each int

	mu      sync.Mutex
	changed chan struct{} // closed when one of the fields below changes
	taken   int
	waiting int
	from    map[netip.Prefix]int
}

// NewTurns allows all turns at a time, and each of them to one address.
func NewTurns(all, each int) *Turns {
	return &Turns{all: all, each: each, changed: make(chan struct{}), from: map[netip.Prefix]int{}}
}

// errTooManyWait means that maxWaiting callers already wait.
var errTooManyWait = errors.New("too many wait for a turn")

// Take waits for a turn. It returns the error of ctx, or errTooManyWait.
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

// Done returns a turn.
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

const (
	// maxStrangers is how many such requests one address may have at a time. The next one closes its connection.
	maxStrangers = 128
	// maxAllStrangers is the limit for all addresses together. The next request is cut off.
	maxAllStrangers = 2048
)

// Strangers counts the requests of callers that have not authenticated.
type Strangers struct {
	mu   sync.Mutex
	all  int
	from map[netip.Prefix]int
}

// NewStrangers returns a count of zero.
func NewStrangers() *Strangers { return &Strangers{from: map[netip.Prefix]int{}} }

// Enter counts a request and returns how many requests the address has now. ok is false if that is above a limit.
func (s *Strangers) Enter(from netip.Prefix) (here int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxAllStrangers || s.from[from] >= maxStrangers {
		return 0, false
	}
	s.all++
	s.from[from]++
	return s.from[from], true
}

// Leave ends a request that Enter counted.
func (s *Strangers) Leave(from netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.from[from]--; s.from[from] == 0 {
		delete(s.from, from)
	}
}
