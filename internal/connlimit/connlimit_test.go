package connlimit

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// fakeConn is a connection from an address that remembers whether it was closed.
type fakeConn struct {
	net.Conn
	from   string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}
func (c *fakeConn) Close() error { c.closed = true; return nil }

// fakeListener gives out the connections that it has.
type fakeListener struct {
	net.Listener
	conns []*fakeConn
}

var errNoMore = errors.New("no more connections")

func (l *fakeListener) Accept() (net.Conn, error) {
	if len(l.conns) == 0 {
		return nil, errNoMore
	}
	c := l.conns[0]
	l.conns = l.conns[1:]
	return c, nil
}

// TestBounds opens connections in order. A `+` after the address marks the connection as authenticated after it is
// accepted.
func TestBounds(t *testing.T) {
	const a, b, c = "192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"
	tests := map[string]struct {
		cfg    Config
		give   []string
		closed []int // by their place in give
	}{
		"within the bounds":                      {Config{Max: 3}, []string{a, b, c}, nil},
		"the oldest unknown one goes":            {Config{Unknown: 2}, []string{a, b, c}, []int{0}},
		"known ones stay":                        {Config{Unknown: 1}, []string{a + "+", b, c}, []int{1}},
		"at most so many in all":                 {Config{Max: 2}, []string{a + "+", b, c}, []int{1}},
		"all are known: the new one is refused":  {Config{Max: 2}, []string{a + "+", b + "+", c}, []int{2}},
		"an address closes its own":              {Config{PerAddress: 2}, []string{b, a, a, a}, []int{1}},
		"an address with known ones alone":       {Config{PerAddress: 2}, []string{b, a + "+", a + "+", a}, []int{3}},
		"a /64 is one address":                   {Config{PerAddress: 1}, []string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8:0:1::1]:1"}, []int{0}},
		"IPv4 within IPv6 is the IPv4 address":   {Config{PerAddress: 1}, []string{"[::ffff:192.0.2.1]:1", a, b}, []int{0}},
		"an address at its bound spares another": {Config{PerAddress: 1, Unknown: 2}, []string{b, a, a, a}, []int{1, 2}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inner := &fakeListener{}
			for _, from := range tt.give {
				inner.conns = append(inner.conns, &fakeConn{from: strings.TrimSuffix(from, "+")})
			}
			all := slices.Clone(inner.conns)
			l := New(inner, tt.cfg)
			for {
				conn, err := l.Accept()
				if errors.Is(err, errNoMore) {
					break
				}
				counted := Of(tls.Server(conn, nil))
				at := slices.Index(all, counted.Conn.(*fakeConn))
				if strings.HasSuffix(tt.give[at], "+") {
					counted.Known()
				}
			}
			var closed []int
			for i, c := range all {
				if c.closed {
					closed = append(closed, i)
				}
			}
			if !slices.Equal(closed, tt.closed) {
				t.Errorf("closed %v, want %v", closed, tt.closed)
			}
		})
	}
}

func TestClosedConnectionsDoNotCount(t *testing.T) {
	inner := &fakeListener{conns: []*fakeConn{{from: "192.0.2.1:1"}, {from: "192.0.2.1:2"}, {from: "192.0.2.1:3"}}}
	l := New(inner, Config{Max: 1})
	for range 3 {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		Of(conn).Known()
		for range 2 { // net/http closes a connection more than once
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if l.total != 0 || l.unknown.Len() != 0 || len(l.addresses) != 0 {
		t.Errorf("%d connections, %d unknown, %d addresses are left", l.total, l.unknown.Len(), len(l.addresses))
	}
}

// TestPeer: a connection of another server does not count against the limit of its address, and is not closed for others.
func TestPeer(t *testing.T) {
	inner := &fakeListener{}
	l := New(inner, Config{Max: 4, PerAddress: 1, Unknown: 2})
	var peers []*Conn
	for range 3 {
		inner.conns = append(inner.conns, &fakeConn{from: "192.0.2.1:1"})
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		peer := Of(conn)
		peer.Peer()
		peer.Peer()
		peers = append(peers, peer)
	}
	for i, p := range peers {
		if p.Conn.(*fakeConn).closed {
			t.Errorf("connection %d was closed", i)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if l.total != 0 || len(l.addresses) != 0 || l.unknown.Len() != 0 {
		t.Errorf("%d connections of %d addresses are counted", l.total, len(l.addresses))
	}
}
