package apiserver

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/caravanserai/cara/api"
)

// bodyWait is how long a call waits for room for its body before it is refused.
const bodyWait = 5 * time.Second

// bodies bounds the bytes of requests in memory. The room for a body is reserved before it is read and given back when
// its call has ended. One caller gets half of it at most, so that it cannot keep out the others.
type bodies struct {
	room  *semaphore.Weighted
	share int64 // of one caller

	mu      sync.Mutex
	callers map[string]int64 // bytes by the actor's name
}

func newBodies(total int64) *bodies {
	return &bodies{room: semaphore.NewWeighted(total), share: total / 2, callers: map[string]int64{}}
}

// reserve makes room for a body of so many bytes.
func (b *bodies) reserve(ctx context.Context, caller string, size int64) (release func(), err error) {
	if !b.add(caller, size) {
		return nil, api.TooMany("the requests of %s that are under way are too large together: send fewer at once, or try again later", caller)
	}
	waiting, cancel := context.WithTimeout(ctx, bodyWait)
	defer cancel()
	if err := b.room.Acquire(waiting, size); err != nil {
		b.add(caller, -size)
		return nil, api.Unavailable("the server has no room for more requests now: try again later")
	}
	return func() {
		b.room.Release(size)
		b.add(caller, -size)
	}, nil
}

func (b *bodies) add(caller string, size int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.callers[caller] + size
	switch {
	case size > 0 && now > b.share:
		return false
	case now == 0:
		delete(b.callers, caller)
	default:
		b.callers[caller] = now
	}
	return true
}
