package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// firstByte is how long a new connection may stay silent.
	firstByte = 10 * time.Second
	// tlsRecord is the first byte of every TLS connection, and never that of an HTTP request.
	tlsRecord = 0x16
)

// Listener accepts TLS and, on the loopback only, plaintext on one address. It returns a *tls.Conn, whose handshake is
// left to the server, or a plain connection. A plaintext caller from elsewhere is told to use TLS and let go. The
// listener that it wraps bounds the connections: see package connlimit.
//
// The goroutines that wait for first bytes begin with the first Accept and are gone when Close returns.
type Listener struct {
	inner  net.Listener
	config *tls.Config
	ready  chan net.Conn

	ctx    context.Context //nolint:containedctx // the listener's own life: net.Listener has no other way to end it
	cancel context.CancelCauseFunc
	begin  sync.Once
	wg     sync.WaitGroup
}

// NewListener wraps inner. It starts nothing.
func NewListener(inner net.Listener, config *tls.Config) *Listener {
	//nolint:forbidigo // a listener's life is its own: it ends with Close
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Listener{
		inner: inner, config: config, ctx: ctx, cancel: cancel,
		ready: make(chan net.Conn),
	}
}

// Addr is the address listened on.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Accept returns the next connection whose first byte is known. After Close it returns net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	l.begin.Do(func() { l.wg.Go(l.acceptAll) })
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.ctx.Done():
		return nil, context.Cause(l.ctx)
	}
}

// Close stops accepting, and ends the connections that no Accept has returned yet.
func (l *Listener) Close() error {
	err := l.inner.Close()
	l.cancel(net.ErrClosed)
	l.wg.Wait()
	return err
}

func (l *Listener) acceptAll() {
	for {
		conn, err := l.inner.Accept()
		if err != nil {
			if l.pause(err) {
				continue
			}
			l.cancel(err)
			return
		}
		l.wg.Go(func() { l.greet(conn) })
	}
}

// pause waits out an error that passes by itself, such as too many open files, and says whether to go on.
func (l *Listener) pause(err error) bool {
	var passing interface{ Temporary() bool }
	if errors.Is(err, net.ErrClosed) || !errors.As(err, &passing) || !passing.Temporary() {
		return false
	}
	select {
	case <-time.After(100 * time.Millisecond):
		return true
	case <-l.ctx.Done():
		return false
	}
}

// greet waits for the first byte and hands the connection over as what it is.
func (l *Listener) greet(raw net.Conn) {
	stop := context.AfterFunc(l.ctx, func() { _ = raw.Close() }) // Close must not wait for a silent caller
	first, err := readFirst(raw)
	if err != nil {
		stop()
		_ = raw.Close() // a caller that says nothing, or is gone, hears nothing
		return
	}
	conn := net.Conn(&startedConn{Conn: raw, first: []byte{first}})
	switch {
	case first == tlsRecord:
		conn = tls.Server(conn, l.config)
	case !local(raw):
		refusePlaintext(conn)
		stop()
		return
	}
	select {
	case l.ready <- conn:
		stop()
	case <-l.ctx.Done():
		_ = raw.Close()
	}
}

func readFirst(conn net.Conn) (byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(firstByte)); err != nil {
		return 0, err
	}
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil {
		return 0, err
	}
	return first[0], conn.SetReadDeadline(time.Time{})
}

// local says whether both ends are on this machine's loopback, or on a Unix socket.
func local(conn net.Conn) bool {
	return loopback(conn.RemoteAddr()) && loopback(conn.LocalAddr())
}

func loopback(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	default:
		return false
	}
}

// startedConn is a connection of which the first bytes have been read already. Only one goroutine reads.
type startedConn struct {
	net.Conn
	first []byte
}

// NetConn returns the connection underneath.
func (c *startedConn) NetConn() net.Conn { return c.Conn }

func (c *startedConn) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}
