package agent

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff doubles from first to most, each wait spread over its second half, so that agents do not come back in step.
type backoff struct{ first, most, next time.Duration }

func newBackoff(first, most time.Duration) *backoff {
	return &backoff{first: first, most: most, next: first}
}

func (b *backoff) reset() { b.next = b.first }

func (b *backoff) wait(ctx context.Context) {
	d := b.next/2 + rand.N(b.next/2+1)
	b.next = min(b.next*2, b.most)
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
