package connlimit

import (
	"net/netip"
	"sync"
)

// Counter limits what callers do at the same time, together and from each address; see Prefix. All methods are safe for concurrent use.
type Counter struct {
	all, each int // limits

	mu    sync.Mutex
	total int
	from  map[netip.Prefix]int
}

// NewCounter allows all at a time, and each of them to one address.
func NewCounter(all, each int) *Counter {
	return &Counter{all: all, each: each, from: map[netip.Prefix]int{}}
}

// Enter counts one more, and returns how many the address has now. ok is false, and nothing is counted, if that is above a limit.
func (c *Counter) Enter(from netip.Prefix) (here int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total >= c.all || c.from[from] >= c.each {
		return 0, false
	}
	c.total++
	c.from[from]++
	return c.from[from], true
}

// Leave ends what Enter counted.
func (c *Counter) Leave(from netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.from[from]--; c.from[from] == 0 {
		delete(c.from, from)
	}
}

// Counts returns how many are counted, and from how many addresses.
func (c *Counter) Counts() (total, addresses int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total, len(c.from)
}
