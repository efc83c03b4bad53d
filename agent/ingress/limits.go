package ingress

import (
	"cmp"
	"container/list"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limits are limits on what one client or service may occupy, and for how long. There is no limit on the total time of a
// request: uploads, downloads, event streams and WebSockets may last. Only a peer that makes no progress is disconnected.
type Limits struct {
	// Header is the timeout for a request's header. The default is 10 s.
	Header time.Duration
	// Idle is how long a client's connection is kept between requests. The default is 2 min.
	Idle time.Duration
	// Stall is how long a body may make no progress, because a client neither sends nor receives, or a service does not
	// receive. The default is 1 min. Upgraded connections may be silent, but must receive what is sent to them.
	Stall time.Duration
	// Dial is the timeout for a connection to a service. The default is 5 s.
	Dial time.Duration
	// Answer is the timeout from the end of a request to the header of its response. The default is 5 min.
	Answer time.Duration
	// Check is how often a new connection shows that the agent of another node still answers, while requests to it last. The
	// default is 10 s.
	Check time.Duration
	// Hold is how long a request waits for a project that moves to another node. The default is 30 s.
	Hold time.Duration
	// HeaderBytes is the maximum size of a request's header, in bytes (default 64 KiB). AnswerHeaderBytes is the maximum for a
	// response (default 256 KiB).
	HeaderBytes       int
	AnswerHeaderBytes int64
	// Connections is the maximum number of open client connections. The default is 8192. Beyond it, a new connection closes the
	// one that has waited longest for a request, or waits itself if all are in use.
	Connections int
	// ClientConnections is the maximum for one client address. The default is a quarter of Connections.
	ClientConnections int
}

func (l Limits) withDefaults() Limits {
	connections := cmp.Or(l.Connections, 8192)
	return Limits{
		Header: cmp.Or(l.Header, 10*time.Second), Idle: cmp.Or(l.Idle, 2*time.Minute), Stall: cmp.Or(l.Stall, time.Minute),
		Dial: cmp.Or(l.Dial, 5*time.Second), Answer: cmp.Or(l.Answer, 5*time.Minute), Hold: cmp.Or(l.Hold, 30*time.Second),
		Check:       cmp.Or(l.Check, 10*time.Second),
		HeaderBytes: cmp.Or(l.HeaderBytes, 64<<10), AnswerHeaderBytes: cmp.Or(l.AnswerHeaderBytes, 256<<10),
		Connections: connections, ClientConnections: cmp.Or(l.ClientConnections, max(1, connections/4)),
	}
}

// conn is a connection with a timeout for writes that make no progress. It has no ReadFrom, because the kernel would then
// write past the deadline.
type conn struct {
	net.Conn
	stall time.Duration
	due   atomic.Int64 // deadline of writes, in ns; 0: none
	first []byte       // already read; belongs to the reader
	named string       // the host that the client names in its TLS handshake, if peek has looked

	// Written before the first reader has the connection.
	remote   net.Addr // of the client, from the header of a load balancer; nil if there is none
	balanced bool     // it began with such a header

	writing sync.Mutex        // of Write: crypto/tls may answer the client while a handler writes
	joined  *[joinedSize]byte // not nil between join and sendJoined
	kept    int               // bytes in joined

	set    *connections // nil if it is not counted
	from   netip.Prefix
	resets *rate.Limiter // of HTTP/2 streams by the client; nil if it is not counted
	// The fields below are guarded by set.mu.
	inAll, inOwn *list.Element // its entries in the waiting lists; nil while it is not waiting
	left         bool
}

func (c *conn) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		if c.first = c.first[n:]; len(c.first) == 0 {
			c.first = nil // a TLS greeting has some KiB, and the connection may be idle for long
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// begin reads the first byte, if there is none yet.
func (c *conn) begin() bool {
	if len(c.first) > 0 {
		return true
	}
	var first [1]byte
	if _, err := c.Conn.Read(first[:]); err != nil {
		return false
	}
	c.first = first[:]
	return true
}

// RemoteAddr returns the address of the client, also behind a load balancer.
func (c *conn) RemoteAddr() net.Addr {
	if c.remote != nil {
		return c.remote
	}
	return c.Conn.RemoteAddr()
}

// send writes. It extends the deadline when an eighth of it is used up, instead of at each write.
func (c *conn) send(p []byte) (int, error) {
	now := time.Now()
	if due := now.Add(c.stall); due.UnixNano()-c.due.Load() > int64(c.stall/8) {
		if err := c.Conn.SetWriteDeadline(due); err != nil {
			return 0, err
		}
		c.due.Store(due.UnixNano())
	}
	return c.Conn.Write(p)
}

// SetDeadline is called by net/http when a connection is hijacked.
func (c *conn) SetDeadline(t time.Time) error {
	c.due.Store(0)
	return c.Conn.SetDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.due.Store(0)
	return c.Conn.SetWriteDeadline(t)
}

// CloseWrite lets the peer read the remaining data.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// SetLinger makes Close reset the connection, so that the peer does not take the data that it has for all of it.
func (c *conn) SetLinger(seconds int) error {
	if lingers, ok := c.Conn.(interface{ SetLinger(seconds int) error }); ok {
		return lingers.SetLinger(seconds)
	}
	return nil
}

func (c *conn) Close() error {
	if c.set != nil {
		c.set.leave(c)
	}
	return c.Conn.Close()
}

// bodyDeadline extends the deadline of a request body while data arrives.
type bodyDeadline struct {
	set   func(time.Time) error
	stall time.Duration
	due   time.Time
}

func (p *bodyDeadline) extend() error {
	due := time.Now().Add(p.stall)
	if due.Sub(p.due) <= p.stall/8 {
		return nil
	}
	p.due = due
	return p.set(due)
}
