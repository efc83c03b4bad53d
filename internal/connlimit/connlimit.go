// Package connlimit bounds the connections of a listener. It stands beside the straight line, in front of every server
// that strangers can reach.
//
// What holds:
//
//   - A connection is unknown until the server vouches for it with Known, after it has authenticated the caller.
//   - There are at most Config.Max connections, Config.PerAddress from one address, and Config.Unknown unknown ones.
//   - When one of these bounds is reached, the oldest unknown connection that counts against it is closed to make room.
//     A known connection is never closed: where all are known, the new connection is refused.
//
// So an address that opens many connections closes its own, and silent connections cannot keep callers out.
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
	defaultUnknown    = 1024
	// prefixIPv6 is how much of an IPv6 address counts: a host commonly has a whole /64.
	prefixIPv6 = 64
)

// Config has the bounds of a listener.
type Config struct {
	// Max bounds all connections; 0 is 4,096.
	Max int
	// PerAddress bounds the connections from one address, or from one /64 of IPv6; 0 is 512.
	PerAddress int
	// Unknown bounds the connections that have not authenticated; 0 is 1,024.
	Unknown int
}

// Listener accepts connections within the bounds.
type Listener struct {
	net.Listener
	cfg Config

	mu        sync.Mutex
	total     int
	unknown   *list.List // of *Conn, oldest first
	addresses map[netip.Prefix]*address
}

// address is what is open from one address.
type address struct {
	total   int
	unknown *list.List // of *Conn, oldest first
}

// Conn is a connection that counts.
type Conn struct {
	net.Conn
	listener *Listener
	from     netip.Prefix

	// Guarded by listener.mu.
	closed  bool
	oldest  *list.Element // in listener.unknown; nil when the connection is known
	sibling *list.Element // in the unknown list of its address
}

// New wraps a listener. It starts nothing.
func New(inner net.Listener, cfg Config) *Listener {
	cfg.Max = cmp.Or(cfg.Max, defaultMax)
	cfg.PerAddress = cmp.Or(cfg.PerAddress, defaultPerAddress)
	cfg.Unknown = cmp.Or(cfg.Unknown, defaultUnknown)
	return &Listener{Listener: inner, cfg: cfg, unknown: list.New(), addresses: map[netip.Prefix]*address{}}
}

// Accept returns the next connection that is within the bounds.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		counted, evicted := l.admit(conn)
		if evicted != nil {
			_ = evicted.Conn.Close() // it does not count any more
		}
		if counted != nil {
			return counted, nil
		}
		_ = conn.Close()
	}
}

// admit counts a new connection. evicted has to be closed to make room for it. Without room, admit returns nil.
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

// add counts a connection; mu is held.
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

// forget stops to count a connection; mu is held.
func (l *Listener) forget(c *Conn) {
	if c.closed {
		return
	}
	c.closed = true
	l.vouch(c)
	l.total--
	a := l.addresses[c.from]
	if a.total--; a.total == 0 {
		delete(l.addresses, c.from)
	}
}

// vouch takes a connection out of the unknown ones; mu is held.
func (l *Listener) vouch(c *Conn) {
	if c.oldest == nil {
		return
	}
	l.unknown.Remove(c.oldest)
	l.addresses[c.from].unknown.Remove(c.sibling)
	c.oldest, c.sibling = nil, nil
}

// Close closes the connection and stops to count it.
func (c *Conn) Close() error {
	c.listener.mu.Lock()
	c.listener.forget(c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite closes the sending half where the connection has halves.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Known says that the caller on this connection has authenticated: the connection is never closed to make room.
func (c *Conn) Known() {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.listener.vouch(c)
}

// Of returns the counted connection under conn, such as under a *tls.Conn; nil if there is none.
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

// prefixOf is what counts as one address; the zero prefix stands for everything without an IP address.
func prefixOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	return Prefix(tcp.AddrPort().Addr())
}

// Prefix is what counts as one address: an IPv4 address, or a /64 of IPv6.
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
