package loop

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff spaces the attempts of a loop that must go on for as long as its program runs, such as a connection that is opened again whenever it
// ends. The waits double from first to most. They begin again only after an attempt that lasted at least as long as the longest wait: one that
// succeeds and ends at once waits like one that fails, so the loop cannot be busy. Each wait is spread over its second half, so that programs
// do not come back in step.
//
// It belongs to one goroutine.
type Backoff struct {
	first, most, next time.Duration
	began             time.Time // when the attempt at hand began
}

// NewBackoff returns a Backoff whose first attempt begins now.
func NewBackoff(first, most time.Duration) *Backoff {
	return &Backoff{first: first, most: most, next: first, began: time.Now()}
}

// Wait waits after an attempt, and begins the next. It returns early when ctx ends.
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
