package admission

import (
	"net/netip"
	"sync"
)

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
