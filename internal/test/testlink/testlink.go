// Package testlink is a connection between two programs that a test can hold up, as a peer that hangs or a network that
// swallows everything does, and let go again.
//
// It stands between two stations of the line from a git push to a running container, such as an agent and its engine or
// an agent and the server, and knows nothing of what passes. Invariants: what is held is not lost but late, connections
// that are open when it is held are open still when it is let go, and Close ends all of them.
package testlink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Address is where something listens: "unix" and a path, or "tcp" and host:port.
type Address struct{ Network, Name string }

// Link passes everything on from one address to another.
type Link struct {
	listener net.Listener
	to       Address
	stop     context.CancelFunc
	done     sync.WaitGroup

	mu   sync.Mutex
	open chan struct{} // closed while everything passes
}

// Start listens at from, and passes on to to. The caller closes it.
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

// Addr is where it listens.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// Hold lets nothing pass any more, either way. New connections are accepted and hear nothing.
func (l *Link) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = make(chan struct{})
}

// Release lets pass what was held, and all that comes.
func (l *Link) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.open)
}

// Close ends every connection and returns when nothing of it runs any more.
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
				return // as a peer that refuses
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

// pass carries one way until its end, which is passed on too.
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
			_ = from.Close() // so that whoever writes there hears of it
			return
		}
		if readErr == nil {
			continue
		}
		if half, ok := to.(interface{ CloseWrite() error }); ok && errors.Is(readErr, io.EOF) {
			_ = half.CloseWrite() // where it is closed already there is nothing to tell
			return
		}
		_ = to.Close()
		return
	}
}
