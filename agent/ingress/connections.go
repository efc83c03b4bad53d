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

	"golang.org/x/time/rate"

	"github.com/caravanserai/cara/agent/proxyheader"
	"github.com/caravanserai/cara/internal/connlimit"
	"github.com/caravanserai/cara/internal/loglimit"
)

// connections are the open connections of clients.
//
// A connection waits while the ingress has no complete request header from it: it is new, idle between two requests, or its
// header is still arriving. If there are too many connections, the one that has waited longest is closed, so an inactive
// connection never blocks an active one. One client cannot use up all connections: at its limit, its own waiting connections
// are closed first, and if none of them is waiting, the new one is closed.
type connections struct {
	total, each int // maximum numbers, of all clients and of one
	log         *slog.Logger
	refusals    loglimit.Limit
	freed       chan struct{} // signals that a connection ended or began to wait

	streams, excess *connlimit.Counter // streams of HTTP/2 that are served, and that are refused: see countStream

	mu      sync.Mutex
	open    int
	waiting *list.List // of *conn, longest wait first
	clients map[netip.Prefix]*client
}

// client is what one address has open.
type client struct {
	open    int
	waiting *list.List // of *conn, longest wait first
}

func newConnections(l Limits, log *slog.Logger) *connections {
	return &connections{
		total: l.Connections, each: l.ClientConnections, log: log, freed: make(chan struct{}, 1),
		waiting: list.New(), clients: map[netip.Prefix]*client{},
		streams: connlimit.NewCounter(2*l.Connections, l.ClientConnections), excess: connlimit.NewCounter(l.Connections, l.ClientConnections),
	}
}

func (s *connections) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// enter adds a new connection. If its client is at its limit and all its connections are in use, enter closes the new one
// and returns nil.
func (s *connections) enter(raw net.Conn, stall time.Duration) *conn {
	c := &conn{Conn: raw, stall: stall, set: s, from: addressOf(raw), resets: rate.NewLimiter(resetsPerSecond, resets)}
	s.mu.Lock()
	victim, ok := s.join(c)
	s.mu.Unlock()
	if !ok {
		s.refuse(raw)
		return nil
	}
	if victim != nil {
		_ = victim.Close() // errors do not matter: it is abandoned
	}
	return c
}

// join counts a connection for its client. If the client is at its limit, join returns its connection that has waited longest,
// which must be closed, or false if all are in use. mu is held.
func (s *connections) join(c *conn) (victim *conn, ok bool) {
	own := s.clients[c.from]
	if own == nil {
		own = &client{waiting: list.New()}
		s.clients[c.from] = own
	}
	if own.open >= s.each {
		if victim = s.longest(own.waiting, nil); victim == nil {
			return nil, false
		}
	}
	own.open++
	s.open++
	s.await(c)
	return victim, true
}

// part ends what join has counted. mu is held.
func (s *connections) part(c *conn) {
	s.busy(c)
	s.open--
	own := s.clients[c.from]
	if own.open--; own.open == 0 {
		delete(s.clients, c.from)
	}
}

func (s *connections) refuse(raw net.Conn) {
	if unsaid, ok := s.refusals.Say(time.Now()); ok {
		s.log.Warn("connection refused: its client has too many open", "remote", raw.RemoteAddr(), "limit", s.each, "unsaid", unsaid)
	}
	_ = raw.Close() // errors do not matter: it is abandoned
}

// makeRoom closes the connections that have waited longest while there are too many, except the newest. If all others are in
// use, it waits. It returns false if ended is closed meanwhile.
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
			_ = victim.Close() // errors do not matter: it is abandoned
			continue
		}
		select {
		case <-s.freed:
		case <-ended:
			return false
		}
	}
}

// closeOne closes the connection that has waited longest, to free its file descriptor.
func (s *connections) closeOne() {
	s.mu.Lock()
	victim := s.longest(s.waiting, nil)
	s.mu.Unlock()
	if victim != nil {
		_ = victim.Close() // errors do not matter: it is abandoned
	}
}

// longest removes the first connection other than but from both of its waiting lists and returns it. mu is held.
func (s *connections) longest(of *list.List, but *conn) *conn {
	for at := of.Front(); at != nil; at = at.Next() {
		if c := at.Value.(*conn); c != but {
			s.busy(c)
			return c
		}
	}
	return nil
}

// await adds a connection to its waiting lists, and busy removes it. mu is held.
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

// connOf returns the connection of a client below TLS.
func connOf(of net.Conn) *conn {
	if over, ok := of.(*tls.Conn); ok {
		of = over.NetConn()
	}
	return of.(*conn)
}

// changed is the ConnState callback of net/http.
func (s *connections) changed(of net.Conn, state http.ConnState) {
	c := connOf(of)
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
	case http.StateNew, http.StateClosed: // handled by enter and Close
	}
}

// leave removes a closed connection.
func (s *connections) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.left {
		return
	}
	c.left = true
	s.part(c)
	s.tell()
}

func (s *connections) tell() {
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

// addressOf returns what counts as one client: an IPv4 address, or an IPv6 /64, whose addresses one machine can choose
// freely.
func addressOf(c net.Conn) netip.Prefix {
	at, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}
	}
	return connlimit.Prefix(at.Addr())
}

// listener accepts clients in plaintext and over TLS on the same address. It distinguishes them by the first byte. On the
// internal listener, only other agents use TLS.
type listener struct {
	net.Listener
	set    *connections
	limits Limits
	tls    *tls.Config // of the connections that begin with TLS; nil: none does
	always bool        // all connections begin with TLS
	from   proxyheader.Senders
	peek   func(*conn)      // may find out which host a connection names
	pass   func(*conn) bool // waits for what its host needs; passes on and closes a connection whose host is for that
	ready  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	err  error                 // why it accepts no more
	mute map[net.Conn]struct{} // those that have not sent their first byte
}

func newListener(l net.Listener, limits Limits, set *connections, secured *tls.Config) *listener {
	return &listener{
		Listener: l, set: set, limits: limits, tls: secured, ready: make(chan net.Conn), closed: make(chan struct{}),
		mute: map[net.Conn]struct{}{},
	}
}

// tlsRecord is the first byte of every TLS connection, and of no HTTP request.
const tlsRecord = 0x16

// retryAccept is the wait after a temporary error of Accept.
const retryAccept = 50 * time.Millisecond

// run accepts until the listener is closed, and returns when all its goroutines have ended.
func (l *listener) run() {
	var greeting sync.WaitGroup
	defer greeting.Wait()
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			var passing interface{ Temporary() bool }
			if errors.As(err, &passing) && passing.Temporary() { // for example too many open files
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
			_ = c.Close() // the listener is closed
			return
		}
		greeting.Go(func() { l.greet(c) })
	}
}

// greet reads the header of a load balancer, waits for the first byte and passes the connection to Accept.
func (l *listener) greet(c *conn) {
	if !l.heard(c) {
		_ = c.Close() // a client that sends nothing gets no response
		return
	}
	if l.pass(c) {
		return
	}
	var out net.Conn = c
	switch begins := c.first[0] == tlsRecord; {
	case l.tls != nil && begins && (l.always || !c.balanced): // a load balancer passes on no other agents
		out = tls.Server(c, l.tls)
	case l.always, l.tls != nil && begins:
		_ = c.Close() // it speaks another protocol
		return
	}
	select {
	case l.ready <- out:
	case <-l.closed:
		_ = c.Close() // the listener is closed
	}
}

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
	if !l.identify(c) || !c.begin() {
		return false
	}
	l.peek(c)
	return c.SetReadDeadline(time.Time{}) == nil
}

// Accept returns the next connection that has sent its first byte.
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

// Close closes the listener, and the connections that have not sent their first byte.
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
			_ = c.Close() // ends its pending read
		}
		close(l.closed)
	})
}
