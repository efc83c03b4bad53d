package ingress

import (
	"container/list"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// connections are those that clients have open.
//
// A connection waits while the ingress has no whole request of it: it is new, it is idle between two requests, or its
// header is still arriving. When there are too many, the one that has waited longest is closed, so a connection that
// does nothing never keeps out one that has something to ask. One client cannot use up the places of all: when it has
// its share, its own connections make room, and where none of them waits the new one is closed.
type connections struct {
	total, each int // how many there may be, of all clients and of one
	log         *slog.Logger
	refusals    logLimit
	freed       chan struct{} // has one entry when one ended or began to wait

	mu      sync.Mutex
	open    int
	waiting *list.List // of *conn, the longest first
	clients map[netip.Prefix]*client
}

// client is what one address has open.
type client struct {
	open    int
	waiting *list.List // of *conn, the longest first
}

func newConnections(l Limits, log *slog.Logger) *connections {
	return &connections{
		total: l.Connections, each: l.ClientConnections, log: log, freed: make(chan struct{}, 1),
		waiting: list.New(), clients: map[netip.Prefix]*client{},
	}
}

// count is how many are open.
func (s *connections) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// enter takes a new connection in. It returns nil, and closes the connection, where its client has its share and all of
// that is in use.
func (s *connections) enter(raw net.Conn, stall time.Duration) *conn {
	c := &conn{Conn: raw, stall: stall, set: s, from: addressOf(raw)}
	s.mu.Lock()
	own := s.clients[c.from]
	if own == nil {
		own = &client{waiting: list.New()}
		s.clients[c.from] = own
	}
	var victim *conn
	if own.open >= s.each {
		if victim = s.longest(own.waiting, nil); victim == nil {
			s.mu.Unlock()
			s.refuse(raw)
			return nil
		}
	}
	own.open++
	s.open++
	s.await(c)
	s.mu.Unlock()
	if victim != nil {
		_ = victim.Close() // it is given up either way
	}
	return c
}

func (s *connections) refuse(raw net.Conn) {
	if unsaid, ok := s.refusals.say(time.Now()); ok {
		s.log.Warn("connection refused: its client has too many open", "remote", raw.RemoteAddr(), "limit", s.each, "unsaid", unsaid)
	}
	_ = raw.Close() // it is given up either way
}

// makeRoom closes for a new connection what has waited longest while there are too many, and waits where all others are
// in use. It returns false when ended is closed meanwhile.
func (s *connections) makeRoom(newest *conn, ended <-chan struct{}) bool {
	for {
		s.mu.Lock()
		over := s.open > s.total
		var victim *conn
		if over {
			victim = s.longest(s.waiting, newest)
		}
		s.mu.Unlock()
		switch {
		case !over:
			return true
		case victim != nil:
			_ = victim.Close() // it is given up either way
			continue
		}
		select {
		case <-s.freed:
		case <-ended:
			return false
		}
	}
}

// closeOne closes what waits longest, for its file descriptor.
func (s *connections) closeOne() {
	s.mu.Lock()
	victim := s.longest(s.waiting, nil)
	s.mu.Unlock()
	if victim != nil {
		_ = victim.Close() // it is given up either way
	}
}

// longest takes the first connection but one out of the two lists that it waits in. It is called with mu held.
func (s *connections) longest(of *list.List, but *conn) *conn {
	for at := of.Front(); at != nil; at = at.Next() {
		if c := at.Value.(*conn); c != but {
			s.busy(c)
			return c
		}
	}
	return nil
}

// await and busy are called with mu held.
func (s *connections) await(c *conn) {
	if c.inAll == nil {
		c.inAll, c.inOwn = s.waiting.PushBack(c), s.clients[c.from].waiting.PushBack(c)
	}
}

func (s *connections) busy(c *conn) {
	if c.inAll != nil {
		s.waiting.Remove(c.inAll)
		s.clients[c.from].waiting.Remove(c.inOwn)
		c.inAll, c.inOwn = nil, nil
	}
}

// changed is told by net/http what becomes of a connection.
func (s *connections) changed(of net.Conn, state http.ConnState) {
	if over, ok := of.(*tls.Conn); ok {
		of = over.NetConn()
	}
	c := of.(*conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateActive, http.StateHijacked:
		s.busy(c)
	case http.StateIdle:
		if !c.left {
			s.await(c)
			s.tell()
		}
	case http.StateNew, http.StateClosed: // enter and Close know of these
	}
}

// leave takes a connection out that was closed.
func (s *connections) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.left {
		return
	}
	c.left = true
	s.busy(c)
	s.open--
	own := s.clients[c.from]
	if own.open--; own.open == 0 {
		delete(s.clients, c.from)
	}
	s.tell()
}

func (s *connections) tell() {
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

// addressOf is what counts as one client: an address, or the 64 bits of an IPv6 network that one machine can choose from.
func addressOf(c net.Conn) netip.Prefix {
	at, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}
	}
	ip := at.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// listener accepts clients in plaintext and other agents over TLS on one address: the first byte says which.
type listener struct {
	net.Listener
	set    *connections
	limits Limits
	peers  *tls.Config // nil: no agent is known
	ready  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	err  error                 // why it takes no more
	mute map[net.Conn]struct{} // those whose first byte has not come
}

func newListener(l net.Listener, limits Limits, set *connections, peers *tls.Config) *listener {
	return &listener{
		Listener: l, set: set, limits: limits, peers: peers, ready: make(chan net.Conn), closed: make(chan struct{}),
		mute: map[net.Conn]struct{}{},
	}
}

// tlsRecord is the first byte of every TLS connection, and never that of an HTTP request.
const tlsRecord = 0x16

// retryAccept is how long to wait when the machine has no room for a connection.
const retryAccept = 50 * time.Millisecond

// run accepts until the listener is closed, and returns when no goroutine of it is left.
func (l *listener) run() {
	var greeting sync.WaitGroup
	defer greeting.Wait()
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			var passing interface{ Temporary() bool }
			if errors.As(err, &passing) && passing.Temporary() { // too many open files, say
				l.set.closeOne()
				select {
				case <-time.After(retryAccept):
					continue
				case <-l.closed:
				}
			}
			l.end(err)
			return
		}
		c := l.set.enter(raw, l.limits.Stall)
		if c == nil {
			continue
		}
		if !l.set.makeRoom(c, l.closed) {
			_ = c.Close() // nobody serves it any more
			return
		}
		greeting.Go(func() { l.greet(c) })
	}
}

// greet hands a connection out once its first byte says what it is.
func (l *listener) greet(c *conn) {
	if !l.heard(c) {
		_ = c.Close() // a client that says nothing hears nothing
		return
	}
	var out net.Conn = c
	if l.peers != nil && c.first[0] == tlsRecord {
		out = tls.Server(c, l.peers)
	}
	select {
	case l.ready <- out:
	case <-l.closed:
		_ = c.Close() // nobody serves it any more
	}
}

// heard waits for the first byte.
func (l *listener) heard(c *conn) bool {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return false
	}
	l.mute[c] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.mute, c)
	}()
	if c.SetReadDeadline(time.Now().Add(l.limits.Header)) != nil {
		return false
	}
	var first [1]byte
	if _, err := c.Conn.Read(first[:]); err != nil {
		return false
	}
	c.first = first[:]
	return c.SetReadDeadline(time.Time{}) == nil
}

// Accept returns the next connection that has said something.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.closed:
		l.mu.Lock()
		defer l.mu.Unlock()
		return nil, l.err
	}
}

// Close ends the listener, and those connections that have said nothing yet.
func (l *listener) Close() error {
	l.end(net.ErrClosed)
	return l.Listener.Close()
}

func (l *listener) end(why error) {
	l.once.Do(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.err = why
		for c := range l.mute {
			_ = c.Close() // its reader is let go
		}
		close(l.closed)
	})
}
