package admission

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/caravanserai/cara/internal/connlimit"
)

// maxWaiting is how many callers may wait for one kind of turn.
const maxWaiting = 512

// Turns limits what unauthenticated callers do concurrently, in total and for each address, so that one address cannot
// block the others. A caller above the limit waits for a turn. At most maxWaiting callers wait.
type Turns struct {
	taken *connlimit.Counter

	mu      sync.Mutex    // also while a turn is taken or returned
	changed chan struct{} // closed when a turn is returned
	waiting int
}

// NewTurns allows all turns at a time, and each of them to one address.
func NewTurns(all, each int) *Turns {
	return &Turns{taken: connlimit.NewCounter(all, each), changed: make(chan struct{})}
}

// errTooManyWait means that maxWaiting callers already wait.
var errTooManyWait = errors.New("too many wait for a turn")

// Take waits for a turn. It returns the error of ctx, or errTooManyWait.
func (t *Turns) Take(ctx context.Context, from netip.Prefix) error {
	for {
		t.mu.Lock()
		if _, ok := t.taken.Enter(from); ok {
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
	t.taken.Leave(from)
	close(t.changed)
	t.changed = make(chan struct{})
}

const (
	// maxStrangers is how many such requests one address may have at a time. The next one closes its connection.
	maxStrangers = 128
	// maxAllStrangers is the limit for all addresses together. The next request is cut off.
	maxAllStrangers = 2048
)

// NewStrangers returns a counter for the requests of callers that have not authenticated.
func NewStrangers() *connlimit.Counter { return connlimit.NewCounter(maxAllStrangers, maxStrangers) }
