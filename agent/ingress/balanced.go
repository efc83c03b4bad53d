package ingress

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/caravanserai/cara/agent/proxyheader"
)

// identify finds out whose connection it is. One from a load balancer must begin with a PROXY header, which names the client.
// Until then it counts for the load balancer. Other agents send no header: at the internal listener, a connection that begins
// with TLS is one of them, and proves it.
func (l *listener) identify(c *conn) bool {
	if !l.from.Has(c.Conn.RemoteAddr()) {
		return true
	}
	if !c.begin() { // for example a check whether the port is open
		return false
	}
	if l.tls != nil && !l.always && c.first[0] == tlsRecord {
		return true
	}
	client, err := proxyheader.Read(c)
	if err != nil {
		l.noHeader(c, err)
		return false
	}
	c.balanced = true
	return client == nil || l.set.transfer(c, client)
}

// noHeader logs a connection of a load balancer that says nothing about its client.
func (l *listener) noHeader(c *conn, err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return
	}
	if unsaid, ok := l.set.refusals.Say(time.Now()); ok {
		l.set.log.Warn("connection refused: --proxy-protocol-from has its address, so it must begin with a PROXY header",
			"remote", c.Conn.RemoteAddr(), "listener", l.Addr(), "error", err, "unsaid", unsaid)
	}
}

// transfer counts an open connection for its client instead of the load balancer. It returns false if the client has too many.
// The caller then closes the connection.
func (s *connections) transfer(c *conn, client net.Addr) bool {
	s.mu.Lock()
	if c.left { // it was closed meanwhile
		s.mu.Unlock()
		return false
	}
	s.part(c)
	c.remote = client
	c.from = addressOf(c)
	victim, ok := s.join(c)
	c.left = !ok
	s.tell()
	s.mu.Unlock()
	if !ok {
		s.refuse(c)
	}
	if victim != nil {
		_ = victim.Close() // errors do not matter: it is abandoned
	}
	return ok
}
