package ingress

import (
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound what one client, or one service, may hold, and for how long. None of them bounds how long a request as a whole
// takes: uploads, downloads, event streams and WebSockets may last. What must not last is a peer that does not move.
type Limits struct {
	// Header is how long a client may take to send a request's header; 10 s where 0.
	Header time.Duration
	// Idle is how long a client's connection is kept between requests; 2 min where 0.
	Idle time.Duration
	// Stall is how long a body may stand still: a client that neither sends what it announced nor takes what it asked
	// for, or a service that does not take what is sent. 1 min where 0. Connections that were upgraded may be silent,
	// but must take what is sent to them.
	Stall time.Duration
	// Dial is how long a service may take to accept a connection; 5 s where 0.
	Dial time.Duration
	// Answer is how long a service may take from the end of a request to the header of its answer; 5 min where 0.
	Answer time.Duration
	// HeaderBytes is how large a request's header may be, in bytes, and AnswerHeaderBytes an answer's; 64 KiB and
	// 256 KiB where 0.
	HeaderBytes       int
	AnswerHeaderBytes int64
	// Connections is how many clients' connections are open at a time; 8192 where 0. One more closes the one that has
	// waited longest for a request, and waits itself where all are in use.
	Connections int
	// ClientConnections is how many of them one client may have, by its address; a quarter of Connections where 0.
	ClientConnections int
}

func (l Limits) withDefaults() Limits {
	connections := or(l.Connections, 8192)
	return Limits{
		Header: or(l.Header, 10*time.Second), Idle: or(l.Idle, 2*time.Minute), Stall: or(l.Stall, time.Minute),
		Dial: or(l.Dial, 5*time.Second), Answer: or(l.Answer, 5*time.Minute),
		HeaderBytes: or(l.HeaderBytes, 64<<10), AnswerHeaderBytes: or(l.AnswerHeaderBytes, 256<<10),
		Connections: connections, ClientConnections: or(l.ClientConnections, max(1, connections/4)),
	}
}

func or[T comparable](value, standard T) T {
	var zero T
	if value == zero {
		return standard
	}
	return value
}

// conn gives up a write that does not get on. It has no ReadFrom on purpose: the kernel would write past the deadline.
type conn struct {
	net.Conn
	stall time.Duration
	due   atomic.Int64 // when a write is given up, in ns; 0: no deadline
	first []byte       // read already; belongs to whoever reads

	set  *connections // nil: nobody counts it
	from netip.Prefix
	// guarded by set.mu
	inAll, inOwn *list.Element // its places among those that wait; nil while it does not
	left         bool
}

func (c *conn) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// Write moves the deadline forward where an eighth of it is used up: that is often enough, and not at each write.
func (c *conn) Write(p []byte) (int, error) {
	now := time.Now()
	if due := now.Add(c.stall); due.UnixNano()-c.due.Load() > int64(c.stall/8) {
		if err := c.Conn.SetWriteDeadline(due); err != nil {
			return 0, err
		}
		c.due.Store(due.UnixNano())
	}
	return c.Conn.Write(p)
}

// SetDeadline is what net/http calls on a connection that is taken over.
func (c *conn) SetDeadline(t time.Time) error {
	c.due.Store(0)
	return c.Conn.SetDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.due.Store(0)
	return c.Conn.SetWriteDeadline(t)
}

// CloseWrite lets the other side read to the end what was said last.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (c *conn) Close() error {
	if c.set != nil {
		c.set.leave(c)
	}
	return c.Conn.Close()
}

// bodyDeadline moves the deadline of a request's body forward while it comes. A client that stops is not waited for.
type bodyDeadline struct {
	control *http.ResponseController
	stall   time.Duration
	due     time.Time
}

func (p *bodyDeadline) extend() error {
	due := time.Now().Add(p.stall)
	if due.Sub(p.due) <= p.stall/8 {
		return nil
	}
	p.due = due
	return p.control.SetReadDeadline(due)
}

// end is for a body that was read to its end: whether the client is still there is for net/http to see from then on.
func (p *bodyDeadline) end() error { return p.control.SetReadDeadline(time.Time{}) }

// logLimit lets something be said once a second, and counts what was not said.
type logLimit struct {
	mu     sync.Mutex
	last   time.Time
	unsaid int
}

func (s *logLimit) say(now time.Time) (unsaid int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.last) < time.Second {
		s.unsaid++
		return 0, false
	}
	unsaid = s.unsaid
	s.last, s.unsaid = now, 0
	return unsaid, true
}
