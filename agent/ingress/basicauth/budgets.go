package basicauth

import (
	"sync"
	"time"
)

// maxBudgets limits how many budgets are kept. Beyond it, unknown names share one.
const maxBudgets = 50_000

// budgets limit wrong passwords by a name, such as a client's address. Each name has a number of checks, of which one comes back
// after each interval.
type budgets struct {
	size  float64
	every time.Duration

	mu  sync.Mutex
	all map[string]*budget
}

type budget struct {
	left float64
	at   time.Time
}

func newBudgets(size int, every time.Duration) *budgets {
	return &budgets{size: float64(size), every: every, all: map[string]*budget{}}
}

// take uses one check and reports whether there was one.
func (b *budgets) take(name string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	have := b.of(name, now)
	have.left = min(b.size, have.left+float64(now.Sub(have.at))/float64(b.every))
	if have.at = now; have.left < 1 {
		return false
	}
	have.left--
	return true
}

// give returns one check.
func (b *budgets) give(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if have, ok := b.all[name]; ok {
		have.left = min(b.size, have.left+1)
	}
}

// of returns the budget of a name. mu is held.
func (b *budgets) of(name string, now time.Time) *budget {
	if have, ok := b.all[name]; ok {
		return have
	}
	if len(b.all) >= maxBudgets {
		for other, have := range b.all {
			if have.left+float64(now.Sub(have.at))/float64(b.every) >= b.size {
				delete(b.all, other)
			}
		}
	}
	if len(b.all) >= maxBudgets {
		if name = ""; b.all[name] != nil {
			return b.all[name]
		}
	}
	b.all[name] = &budget{left: b.size, at: now}
	return b.all[name]
}
