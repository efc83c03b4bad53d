package loop

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff spaces the attempts of a loop that never gives up, such as a connection that is reopened whenever it ends.
// The wait doubles from first to most. It starts again from first only after an attempt that lasted at least as long as
// most, so an attempt that succeeds and ends immediately waits as long as one that fails. Jitter over the second half of
// each wait keeps programs from retrying in step.
//
// A Backoff is not safe for concurrent use.
type Backoff struct {
	first, most, next time.Duration
	began             time.Time // start of the current attempt
}

// NewBackoff returns a Backoff whose first attempt begins now.
func NewBackoff(first, most time.Duration) *Backoff {
	return &Backoff{first: first, most: most, next: first, began: time.Now()}
}

// Wait waits before the next attempt. It returns early when ctx ends.
func (b *Backoff) Wait(ctx context.Context) {
	if time.Since(b.began) >= b.most {
		b.next = b.first
	}
	timer := time.NewTimer(b.next/2 + rand.N(b.next/2+1))
	defer timer.Stop()
	b.next = min(b.next*2, b.most)
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	b.began = time.Now()
}
