package ports

import (
	"net/netip"
	"sync"

	"github.com/caravanserai/cara/internal/connlimit"
)

// clients counts the open connections of clients. connlimit.Prefix says what is one client.
type clients struct {
	total, each int // maximum numbers, of all clients and of one

	mu   sync.Mutex
	all  int
	open map[netip.Prefix]int
}

// enter counts a connection, unless its client or all clients together have too many. leave ends the count.
func (c *clients) enter(client netip.Addr) (leave func(), ok bool) {
	of := connlimit.Prefix(client)
	if !of.IsValid() {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.total || c.open[of] >= c.each {
		return nil, false
	}
	c.all++
	c.open[of]++
	return sync.OnceFunc(func() { c.leave(of) }), true
}

func (c *clients) leave(of netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.open[of]--; c.open[of] == 0 {
		delete(c.open, of)
	}
}
