package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// firstByte is how long a new connection may send nothing.
	firstByte = 10 * time.Second
	// tlsRecord is the first byte of every TLS connection. An HTTP request never begins with it.
	tlsRecord = 0x16
)

// Listener accepts TLS and, on loopback only, plaintext on one address. It returns a *tls.Conn, whose handshake the server
// does, or a plain connection. A plaintext caller from another address gets an answer that asks for TLS, and its connection
// is closed. The wrapped listener limits the number of connections: see package connlimit.
//
// The goroutines that wait for first bytes start with the first Accept and have ended when Close returns.
type Listener struct {
	inner  net.Listener
	config *tls.Config
	ready  chan net.Conn

	ctx    context.Context //nolint:containedctx // the listener's own life: net.Listener has no other way to end it
	cancel context.CancelCauseFunc
	begin  sync.Once
	wg     sync.WaitGroup
}

// NewListener wraps inner. It starts no goroutine.
func NewListener(inner net.Listener, config *tls.Config) *Listener {
	//nolint:forbidigo // a listener's life is its own: it ends with Close
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Listener{
		inner: inner, config: config, ctx: ctx, cancel: cancel,
		ready: make(chan net.Conn),
	}
}

// Addr returns the address of the listener.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Accept returns the next connection whose first byte has arrived. After Close it returns net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	l.begin.Do(func() { l.wg.Go(l.acceptAll) })
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.ctx.Done():
		return nil, context.Cause(l.ctx)
	}
}

// Close stops accepting and closes the connections that Accept has not returned yet.
func (l *Listener) Close() error {
	l.begin.Do(func() {}) // after this, no Accept starts a goroutine that Wait would not wait for
	err := l.inner.Close()
	l.cancel(net.ErrClosed)
	l.wg.Wait()
	return err
}

func (l *Listener) acceptAll() {
	for {
		conn, err := l.inner.Accept()
		if err != nil {
			if Passing(l.ctx, err) {
				continue
			}
			l.cancel(err)
			return
		}
		l.wg.Go(func() { l.greet(conn) })
	}
}

// Passing waits after a temporary error of a listener, such as too many open files, and reports whether to accept again.
func Passing(ctx context.Context, err error) bool {
	var passing interface{ Temporary() bool }
	if errors.Is(err, net.ErrClosed) || !errors.As(err, &passing) || !passing.Temporary() {
		return false
	}
	select {
	case <-time.After(100 * time.Millisecond):
		return true
	case <-ctx.Done():
		return false
	}
}

// greet waits for the first byte and passes the connection on as TLS or plaintext.
func (l *Listener) greet(raw net.Conn) {
	stop := context.AfterFunc(l.ctx, func() { _ = raw.Close() }) // Close must not wait for a silent caller
	first, err := readFirst(raw)
	if err != nil {
		stop()
		_ = raw.Close() // a silent or closed connection gets no answer
		return
	}
	conn := Started(raw, []byte{first})
	switch {
	case first == tlsRecord:
		conn = tls.Server(conn, l.config)
	case !Local(raw):
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

// Local reports whether both ends are on this machine's loopback interface or on a Unix socket.
func Local(conn net.Conn) bool {
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

// Started returns a connection whose first bytes have already been read: readers get them again. Only one goroutine may read
// from it.
func Started(conn net.Conn, first []byte) net.Conn { return &startedConn{Conn: conn, first: first} }

// startedConn is a connection whose first bytes have already been read. Only one goroutine may read from it.
type startedConn struct {
	net.Conn
	first []byte
}

// NetConn returns the wrapped connection.
func (c *startedConn) NetConn() net.Conn { return c.Conn }

func (c *startedConn) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

const refusal = "this address speaks plaintext on the loopback only: use https:// (TLS) from other machines"

// refusePlaintext answers a plaintext caller that it must use TLS, and closes the connection. It does not read what the
// caller sent, which may be a token. The answer is HTTP/1.1 also for an HTTP/2 caller: gRPC clients report such an answer,
// but after a GOAWAY they would only retry.
func refusePlaintext(conn net.Conn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(firstByte / 5)); err != nil {
		return
	}
	body := fmt.Sprintf(`{"title":"TLSRequired","status":400,"detail":%q}`+"\n", refusal)
	answer := fmt.Sprintf("HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"+
		"Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	if _, err := io.WriteString(conn, answer); err != nil {
		return // the client has closed the connection
	}
	// Closing with unread bytes resets the connection and can destroy the answer. So close the write side first and read
	// some of the rest.
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // see above
	}
	_, _ = io.CopyN(io.Discard, conn, 64<<10) // see above; ends at the deadline
}

// CloseWrite closes the write side of the connection, if the connection supports that.
func (c *startedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
