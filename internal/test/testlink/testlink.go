// Package testlink is a connection between two programs that a test can stop and release, like a peer that hangs or a
// network that drops everything.
//
// It connects two stages of a push, such as an agent and its engine or an agent and the server, and does not interpret the
// data. Invariants: stopped data is delayed and not lost, open connections stay open, and Close ends all of them.
package testlink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Address is an address to listen on: "unix" and a path, or "tcp" and host:port.
type Address struct{ Network, Name string }

// Link forwards everything from one address to another.
type Link struct {
	listener net.Listener
	to       Address
	stop     context.CancelFunc
	done     sync.WaitGroup

	mu   sync.Mutex
	open chan struct{} // closed while data passes
}

// Start listens at from and forwards to to. The caller closes the link.
func Start(ctx context.Context, from, to Address) (*Link, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, from.Network, from.Name)
	if err != nil {
		return nil, fmt.Errorf("listen for a link: %w", err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &Link{listener: listener, to: to, stop: stop, open: make(chan struct{})}
	close(l.open)
	l.done.Go(func() { l.accept(ctx) })
	return l, nil
}

// Addr returns the address of the listener.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// Hold stops all data in both directions. New connections are accepted and get no data.
func (l *Link) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = make(chan struct{})
}

// Release forwards the stopped data and everything after it.
func (l *Link) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.open)
}

// Close ends every connection and waits for all goroutines.
func (l *Link) Close() error {
	l.stop()
	err := l.listener.Close()
	l.done.Wait()
	return err
}

func (l *Link) accept(ctx context.Context) {
	for {
		here, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		l.done.Go(func() {
			defer here.Close()
			there, err := new(net.Dialer).DialContext(ctx, l.to.Network, l.to.Name)
			if err != nil {
				return // like a peer that refuses
			}
			defer there.Close()
			defer context.AfterFunc(ctx, func() { _ = errors.Join(here.Close(), there.Close()) })()
			var ways sync.WaitGroup
			ways.Go(func() { l.pass(ctx, here, there) })
			ways.Go(func() { l.pass(ctx, there, here) })
			ways.Wait()
		})
	}
}

// pass forwards one direction until its end, and forwards the end.
func (l *Link) pass(ctx context.Context, from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, readErr := from.Read(buffer)
		l.mu.Lock()
		open := l.open
		l.mu.Unlock()
		select {
		case <-open:
		case <-ctx.Done():
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			_ = from.Close() // so that a writer gets an error
			return
		}
		if readErr == nil {
			continue
		}
		if half, ok := to.(interface{ CloseWrite() error }); ok && errors.Is(readErr, io.EOF) {
			_ = half.CloseWrite() // it may already be closed
			return
		}
		_ = to.Close()
		return
	}
}
