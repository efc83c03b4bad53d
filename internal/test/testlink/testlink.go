// Package testlink is a connection between two programs that a test can stop and release, like a peer that hangs or a
// network that drops everything.
//
// It connects two stages of a push, such as an agent and its engine or an agent and the server, and does not interpret the
// data. Invariants: stopped data is delayed and not lost, open connections stay open until Break, and Close ends all of them.
package testlink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Address is an address to listen on: "unix" and a path, or "tcp" and host:port.
type Address struct{ Network, Name string }

// Link forwards everything from one address to another.
type Link struct {
	listener net.Listener
	to       Address
	stop     context.CancelFunc
	done     sync.WaitGroup

	mu    sync.Mutex
	open  [2]chan struct{} // by direction; closed while data passes
	delay time.Duration
	cut   context.CancelFunc // ends the connections that are open
	alive context.Context    //nolint:containedctx // of the connections that are open; Break replaces it
}

// Directions of data, from the side that connects.
const (
	there = iota
	back
)

// Start listens at from and forwards to to. The caller closes the link.
func Start(ctx context.Context, from, to Address) (*Link, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, from.Network, from.Name)
	if err != nil {
		return nil, fmt.Errorf("listen for a link: %w", err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &Link{listener: listener, to: to, stop: stop, open: [2]chan struct{}{make(chan struct{}), make(chan struct{})}}
	close(l.open[there])
	close(l.open[back])
	l.alive, l.cut = context.WithCancel(ctx)
	l.done.Go(func() { l.accept(ctx) })
	return l, nil
}

// Loopback starts a link from a free port of loopback to a TCP address. The caller closes it.
func Loopback(ctx context.Context, to string) (*Link, error) {
	return Start(ctx, Address{"tcp", "127.0.0.1:0"}, Address{"tcp", to})
}

// Addr returns the address of the listener.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// Hold stops all data in both directions. New connections are accepted and get no data.
func (l *Link) Hold() { l.hold(there, back) }

// HoldThere stops the data of the side that connects, and lets answers pass.
func (l *Link) HoldThere() { l.hold(there) }

// HoldBack stops the data of the side that accepts, and lets requests pass.
func (l *Link) HoldBack() { l.hold(back) }

func (l *Link) hold(ways ...int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, way := range ways {
		l.open[way] = make(chan struct{})
	}
}

// Release forwards the stopped data and everything after it.
func (l *Link) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, open := range l.open {
		select {
		case <-open:
		default:
			close(open)
		}
	}
}

// Break ends the connections that are open, without the data that Hold has stopped. New ones are accepted.
func (l *Link) Break(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut()
	l.alive, l.cut = context.WithCancel(context.WithoutCancel(ctx))
}

// Slow delays each piece of data by this much; 0 ends that.
func (l *Link) Slow(delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = delay
}

// Close ends every connection and waits for all goroutines.
func (l *Link) Close() error {
	l.stop()
	l.mu.Lock()
	l.cut()
	l.mu.Unlock()
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
			l.mu.Lock()
			alive := l.alive
			l.mu.Unlock()
			ctx, end := context.WithCancel(ctx)
			defer end()
			defer context.AfterFunc(alive, end)() //nolint:contextcheck // Break ends the connection
			peer, err := new(net.Dialer).DialContext(ctx, l.to.Network, l.to.Name)
			if err != nil {
				return // like a peer that refuses
			}
			defer peer.Close()
			defer context.AfterFunc(ctx, func() { _ = errors.Join(here.Close(), peer.Close()) })()
			var ways sync.WaitGroup
			ways.Go(func() { l.pass(ctx, there, here, peer) })
			ways.Go(func() { l.pass(ctx, back, peer, here) })
			ways.Wait()
		})
	}
}

// pass forwards one direction until its end, and forwards the end.
func (l *Link) pass(ctx context.Context, way int, from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, readErr := from.Read(buffer)
		if !l.await(ctx, way) {
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

// await returns when data may pass, and false if the connection has ended.
func (l *Link) await(ctx context.Context, way int) bool {
	l.mu.Lock()
	open, delay := l.open[way], l.delay
	l.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return false
		}
	}
	select {
	case <-open:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
