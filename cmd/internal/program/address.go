package program

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// address is the server's address. It stays bound while a standby becomes active: connections that arrive during the change wait in
// the kernel, and those that the standby has accepted and not passed on are kept. A server that stops being active frees it at
// once, so that clients go to another one.
type address struct {
	listen string

	mu   sync.Mutex
	tcp  *net.TCPListener // nil while it is free
	kept []net.Conn       // bounded by the limits of the role that kept them
}

// standby and active return the listener of the next role. The one of the role before is closed.
func (a *address) standby(ctx context.Context) (net.Listener, error) {
	return a.begin(ctx, func() bool { return ctx.Err() == nil })
}

func (a *address) active(ctx context.Context) (net.Listener, error) {
	return a.begin(ctx, func() bool { return false })
}

// begin returns a listener. When it closes, the address stays bound if stays returns true then.
func (a *address) begin(ctx context.Context, stays func() bool) (net.Listener, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tcp == nil {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", a.listen)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", a.listen, err)
		}
		a.tcp = l.(*net.TCPListener)
	}
	if err := a.tcp.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", a.listen, err)
	}
	return &role{TCPListener: a.tcp, a: a, stays: stays}, nil
}

// keep leaves a connection to the next role.
func (a *address) keep(conn net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept = append(a.kept, conn)
}

func (a *address) next() net.Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.kept) == 0 {
		return nil
	}
	conn := a.kept[0]
	a.kept = a.kept[1:]
	return conn
}

// Close frees the address, until the next role begins.
func (a *address) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, conn := range a.kept {
		_ = conn.Close() // nobody listens
	}
	a.kept = nil
	if a.tcp == nil {
		return nil
	}
	tcp := a.tcp
	a.tcp = nil
	return tcp.Close()
}

// role is the listener of a standby or an active server.
type role struct {
	*net.TCPListener
	a      *address
	stays  func() bool
	closed atomic.Bool
}

// Accept returns the next connection. After Close it returns net.ErrClosed.
func (r *role) Accept() (net.Conn, error) {
	if r.closed.Load() {
		return nil, net.ErrClosed
	}
	if conn := r.a.next(); conn != nil {
		return conn, nil
	}
	conn, err := r.TCPListener.Accept()
	if !r.closed.Load() {
		return conn, err
	}
	if err == nil {
		r.a.keep(conn)
	}
	return nil, net.ErrClosed
}

// Close ends Accept.
func (r *role) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	if r.stays() {
		return r.SetDeadline(time.Now())
	}
	return r.a.Close()
}
