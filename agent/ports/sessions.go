package ports

import (
	"container/list"
	"net/netip"
	"sync"

	"github.com/caravanserai/cara/internal/connlimit"
)

// sessions limits the sessions of UDP, which have no end of their own. When all clients or one client have too many, the
// session that was idle for the longest time ends: of this client, or else of all.
type sessions struct {
	total, each int // maximum numbers, of all clients and of one

	mu  sync.Mutex
	all *list.List                  // of *place, the longest idle one first
	own map[netip.Prefix]*list.List // the same by client
}

// place is the entry of one session.
type place struct {
	of    netip.Prefix
	evict func() // ends the session; it is called without a lock
	// The fields below are guarded by sessions.mu.
	inAll, inOwn *list.Element // nil if it has not entered, or has left
}

func newSessions(total, each int) *sessions {
	return &sessions{total: total, each: each, all: list.New(), own: map[netip.Prefix]*list.List{}}
}

// enter adds a session.
func (s *sessions) enter(p *place) {
	s.mu.Lock()
	oldest := s.surplus(p.of)
	if oldest != nil {
		s.remove(oldest)
	}
	if s.own[p.of] == nil {
		s.own[p.of] = list.New()
	}
	p.inAll, p.inOwn = s.all.PushBack(p), s.own[p.of].PushBack(p)
	s.mu.Unlock()
	if oldest != nil {
		oldest.evict()
	}
}

// surplus returns the session that must end before one of this client can begin, or nil. mu is held.
func (s *sessions) surplus(client netip.Prefix) *place {
	switch own := s.own[client]; {
	case own != nil && own.Len() >= s.each:
		return own.Front().Value.(*place)
	case s.all.Len() >= s.total:
		return s.all.Front().Value.(*place)
	}
	return nil
}

// touch records that a session is in use.
func (s *sessions) touch(p *place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.inAll != nil {
		s.all.MoveToBack(p.inAll)
		s.own[p.of].MoveToBack(p.inOwn)
	}
}

// leave removes a session. It may have left already.
func (s *sessions) leave(p *place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(p)
}

// remove removes a session. mu is held.
func (s *sessions) remove(p *place) {
	if p.inAll == nil {
		return
	}
	s.all.Remove(p.inAll)
	own := s.own[p.of]
	own.Remove(p.inOwn)
	if own.Len() == 0 {
		delete(s.own, p.of)
	}
	p.inAll, p.inOwn = nil, nil
}

// enter counts a connection, unless its client or all clients together have too many. leave ends the count.
func (p *Ports) enter(client netip.Addr) (leave func(), ok bool) {
	of := connlimit.Prefix(client)
	if !of.IsValid() {
		return nil, false
	}
	if _, ok := p.clients.Enter(of); !ok {
		return nil, false
	}
	return sync.OnceFunc(func() { p.clients.Leave(of) }), true
}
