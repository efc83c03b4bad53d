package ports

import (
	"net/netip"
	"sync"
)

// prefix is what counts as one client: an IPv4 address, or the /64 of an IPv6 address, which one machine has to itself.
type prefix = netip.Prefix

func prefixOf(client netip.Addr) prefix {
	bits := 64
	if client.Is4() {
		bits = 32
	}
	of, _ := client.Prefix(bits) // invalid for a client without an address
	return of
}

// clients counts the open connections of clients.
type clients struct {
	total, each int // maximum numbers, of all clients and of one

	mu   sync.Mutex
	all  int
	open map[prefix]int
}

// enter counts a connection, unless its client or all clients together have too many. leave ends the count.
func (c *clients) enter(client netip.Addr) (leave func(), ok bool) {
	of := prefixOf(client)
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

func (c *clients) leave(of prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.open[of]--; c.open[of] == 0 {
		delete(c.open, of)
	}
}
