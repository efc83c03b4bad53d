// Package connlimit limits the connections of a listener. Every public server uses it, in front of all stages of a push.
//
// Invariants:
//
//   - A connection is unknown until the server calls Known or Peer, after it has authenticated the caller.
//   - There are at most Config.Max connections, Config.PerAddress from one address, and Config.Unknown unknown ones. A connection of
//     another server (Peer) does not count for its address.
//   - When a limit is reached, the oldest unknown connection that counts against it is closed. A known connection is never
//     closed: if all are known, the new connection is refused.
//
// So an address that opens many connections closes its own, and silent connections cannot block other callers.
package connlimit

import (
	"cmp"
	"container/list"
	"net"
	"net/netip"
	"sync"
)

const (
	defaultMax        = 4096
	defaultPerAddress = 512
	defaultUnknown    = 1024 // at least
	// prefixIPv6 is the counted prefix of an IPv6 address, because a host usually has a whole /64.
	prefixIPv6 = 64
)

// Config has the limits of a listener.
type Config struct {
	// Max limits all connections; 0 is 4,096.
	Max int
	// PerAddress limits the connections from one address, or from one /64 of IPv6; 0 is 512.
	PerAddress int
	// Unknown limits the connections that have not authenticated; 0 is half of Max, and at least 1,024. Callers that all connect again at
	// the same moment must fit, or else each closes an older one before that has authenticated.
	Unknown int
}

// Listener accepts connections within the limits.
type Listener struct {
	net.Listener
	cfg Config

	mu        sync.Mutex
	total     int
	unknown   *list.List // of *Conn, oldest first
	addresses map[netip.Prefix]*address
}

// address counts the open connections from one address.
type address struct {
	total   int
	unknown *list.List // of *Conn, oldest first
}

// Conn is a counted connection.
type Conn struct {
	net.Conn
	listener *Listener
	from     netip.Prefix

	// The listener's mu guards these fields.
	closed  bool
	peer    bool          // of another server: not counted for its address
	oldest  *list.Element // in listener.unknown; nil when the connection is known
	sibling *list.Element // in the unknown list of its address
}

// New wraps a listener. It starts no goroutine.
func New(inner net.Listener, cfg Config) *Listener {
	cfg.Max = cmp.Or(cfg.Max, defaultMax)
	cfg.PerAddress = cmp.Or(cfg.PerAddress, defaultPerAddress)
	cfg.Unknown = cmp.Or(cfg.Unknown, max(defaultUnknown, cfg.Max/2))
	return &Listener{Listener: inner, cfg: cfg, unknown: list.New(), addresses: map[netip.Prefix]*address{}}
}

// Accept returns the next connection within the limits.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		counted, evicted := l.admit(conn)
		if evicted != nil {
			_ = evicted.Conn.Close() // it is already not counted
		}
		if counted != nil {
			return counted, nil
		}
		_ = conn.Close()
	}
}

// admit counts a new connection, or returns nil if it is above a limit. evicted must be closed to make room for it.
func (l *Listener) admit(conn net.Conn) (counted, evicted *Conn) {
	from := prefixOf(conn.RemoteAddr())
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.addresses[from]
	switch {
	case a != nil && a.total >= l.cfg.PerAddress:
		evicted = first(a.unknown)
	case l.total >= l.cfg.Max || l.unknown.Len() >= l.cfg.Unknown:
		evicted = first(l.unknown)
	default:
		return l.add(conn, from), nil
	}
	if evicted == nil {
		return nil, nil
	}
	l.forget(evicted)
	return l.add(conn, from), evicted
}

// add counts a connection. mu must be held.
func (l *Listener) add(conn net.Conn, from netip.Prefix) *Conn {
	a := l.addresses[from]
	if a == nil {
		a = &address{unknown: list.New()}
		l.addresses[from] = a
	}
	c := &Conn{Conn: conn, listener: l, from: from}
	c.oldest, c.sibling = l.unknown.PushBack(c), a.unknown.PushBack(c)
	l.total++
	a.total++
	return c
}

// forget stops counting a connection. mu must be held.
func (l *Listener) forget(c *Conn) {
	if c.closed {
		return
	}
	c.closed = true
	l.vouch(c)
	l.total--
	if !c.peer {
		l.leave(c)
	}
}

// leave stops counting a connection against the limit of its address. mu must be held.
func (l *Listener) leave(c *Conn) {
	a := l.addresses[c.from]
	if a.total--; a.total == 0 {
		delete(l.addresses, c.from)
	}
}

// vouch removes a connection from the unknown ones. mu must be held.
func (l *Listener) vouch(c *Conn) {
	if c.oldest == nil {
		return
	}
	l.unknown.Remove(c.oldest)
	l.addresses[c.from].unknown.Remove(c.sibling)
	c.oldest, c.sibling = nil, nil
}

// Close closes the connection and stops counting it.
func (c *Conn) Close() error {
	c.listener.mu.Lock()
	c.listener.forget(c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// NetConn returns the wrapped connection.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// CloseWrite closes the write side of the connection, if the connection supports that.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Known marks the connection as authenticated. It is then never closed for a new one.
func (c *Conn) Known() {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.listener.vouch(c)
}

// Peer marks the connection as one of another server, which passes on the connections of many clients. It is known, and does not
// count against the limit of its address.
func (c *Conn) Peer() {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	if c.closed || c.peer {
		return
	}
	c.listener.vouch(c)
	c.listener.leave(c)
	c.peer = true
}

// Of returns the counted connection that conn wraps, for example in a *tls.Conn, or nil.
func Of(conn net.Conn) *Conn {
	for {
		if c, ok := conn.(*Conn); ok {
			return c
		}
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = wrapper.NetConn()
	}
}

func first(l *list.List) *Conn {
	if l.Len() == 0 {
		return nil
	}
	c, _ := l.Front().Value.(*Conn)
	return c
}

// prefixOf returns what counts as one address; the zero prefix means an address without an IP.
func prefixOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	return Prefix(tcp.AddrPort().Addr())
}

// Prefix returns what counts as one address: an IPv4 address, or a /64 of IPv6.
func Prefix(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = prefixIPv6
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}
