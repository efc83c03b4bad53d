package forward

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/internal/connlimit"
)

// headerTimeout limits the time until the first line has arrived.
const headerTimeout = 10 * time.Second

// Receiver is the active server's side. It is a net.Listener of the clients' connections. An http.Server that has Serve for
// Protocol in TLSNextProto, and that serves the Receiver, serves clients of other servers as its own.
type Receiver struct {
	addr   address
	logger *slog.Logger
	conns  chan net.Conn

	drain, end        sync.Once
	draining, closing chan struct{}
}

// NewReceiver returns a receiver without connections. at is the address of the server.
func NewReceiver(at string, logger *slog.Logger) *Receiver {
	return &Receiver{addr: address(at), logger: logger, conns: make(chan net.Conn), draining: make(chan struct{}), closing: make(chan struct{})}
}

// address is the address of a receiver for texts.
type address string

// Network returns "tcp".
func (address) Network() string { return "tcp" }

func (a address) String() string { return string(a) }

// Addr returns the address of the server.
func (r *Receiver) Addr() net.Addr { return r.addr }

// Accept returns the next connection of a client.
func (r *Receiver) Accept() (net.Conn, error) {
	select {
	case conn := <-r.conns:
		return conn, nil
	case <-r.closing:
		return nil, net.ErrClosed
	}
}

// Drain tells the standbys that this server shuts down.
func (r *Receiver) Drain() { r.drain.Do(func() { close(r.draining) }) }

// Close ends Accept. Connections that Accept has returned stay open.
func (r *Receiver) Close() error {
	r.end.Do(func() { close(r.closing) })
	return nil
}

// Serve handles one connection of another server until it is over. It is for TLSNextProto of http.Server.
func (r *Receiver) Serve(_ *http.Server, outer *tls.Conn, _ http.Handler) {
	state := outer.ConnectionState()
	if !identity.PeerServer(&state) {
		r.logger.Warn("refused a forwarded connection without a server's certificate", "from", outer.RemoteAddr())
		return
	}
	if counted := connlimit.Of(outer); counted != nil {
		counted.Peer()
	}
	if outer.SetReadDeadline(time.Now().Add(headerTimeout)) != nil {
		return
	}
	h, err := readHeader(outer)
	if err != nil || outer.SetReadDeadline(time.Time{}) != nil {
		r.logger.Debug("a forwarded connection did not begin", "from", outer.RemoteAddr(), "error", err)
		return
	}
	if h.kind == kindWatch {
		r.logger.Debug("a standby watches this server", "standby", h.via)
		r.watched(outer)
		return
	}
	conn := &Conn{Conn: outer, header: h, ended: make(chan struct{})}
	select {
	case r.conns <- conn:
		<-conn.ended
	case <-r.closing:
	}
}

// watched keeps a connection open while this server serves.
func (r *Receiver) watched(outer *tls.Conn) {
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = io.Copy(io.Discard, outer) // the error says only that the standby has left
	}()
	select {
	case <-left:
	case <-r.draining:
		_, _ = outer.Write([]byte{'\n'}) // a standby that has left does not need it
	}
	_ = outer.Close() // ends the reader
	<-left
}

// Clients returns the listener of the clients' connections within limits. It returns a *tls.Conn for a connection whose TLS
// the standby has passed on.
func (r *Receiver) Clients(limits connlimit.Config, config *tls.Config) net.Listener {
	return clients{connlimit.New(r, limits), config}
}

type clients struct {
	net.Listener
	config *tls.Config
}

func (l clients) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil && Of(conn).header.kind == kindNode {
		conn = tls.Server(conn, l.config)
	}
	return conn, err
}

// Conn is the connection of a client of another server.
type Conn struct {
	net.Conn
	header header
	once   sync.Once
	ended  chan struct{}
}

// RemoteAddr returns the client's address.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.header.client) }

// Secure reports whether the client's connection to the standby was encrypted, and the standby has ended that.
func (c *Conn) Secure() bool { return c.header.kind == kindSecure }

// Via returns the ID of the standby.
func (c *Conn) Via() string { return c.header.via }

// Close closes the connection.
func (c *Conn) Close() error {
	c.once.Do(func() { close(c.ended) })
	return c.Conn.Close()
}

// CloseWrite tells the client that nothing follows.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Of returns the forwarded connection that conn wraps, or nil.
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
