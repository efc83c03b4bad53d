// Package flow limits the bytes in flight on a stream of messages between two programs, in each direction. Server and agent
// use it to relay commands and connections.
//
// gRPC's own flow control is not enough: a server behind net/http reads and buffers a call's messages as fast as they
// arrive, and a receiver that stops reading does not notice the end of the stream. So each side counts the bytes that it has
// sent and the other side has not yet consumed, and stops at a window that both know.
//
//   - A receiver never stops reading. The window bounds what can arrive, so it can buffer all of it.
//   - A message counts as consumed at the next call of Recv. Recv acknowledges consumed bytes once they add up to a quarter
//     of a window.
//   - A message larger than the window is sent when less than a quarter of the window is in flight, because the receiver may
//     not acknowledge less than that.
package flow

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
)

// Message is what a stream carries. GetTaken returns how many bytes its sender has consumed; it is 0 in most messages.
type Message interface {
	proto.Message
	GetTaken() int64
}

// overhead is added to the size of each message, so that many small messages are not free.
const overhead = 64

func weight(m Message) int64 { return int64(proto.Size(m)) + overhead }

// Stream is a gRPC stream that sends S and receives R.
type Stream[S, R Message] interface {
	Send(m S) error
	Recv() (R, error)
}

// End is one side of a stream. One goroutine calls Run. Only one goroutine at a time may call Recv; any may call Send.
type End[S, R Message] struct {
	stream Stream[S, R]
	taken  func(bytes int64) S // makes an acknowledgement
	window int64

	sending sync.Mutex // gRPC allows one sender at a time

	mu       sync.Mutex
	changed  chan struct{} // closed at the next change of the fields below
	underWay int64         // bytes sent and not acknowledged
	queue    []R
	queued   int64 // bytes in queue
	err      error // how the stream ended

	// Only Recv uses these.
	last int64 // size of the message that Recv returned last
	owed int64 // bytes consumed and not acknowledged
}

// New returns one side of a stream. taken makes an acknowledgement for a number of bytes. Both sides must have the same
// window, in bytes. With 0 there is no limit and no acknowledgement, for a peer that does not support windows.
func New[S, R Message](stream Stream[S, R], window int64, taken func(bytes int64) S) *End[S, R] {
	return &End[S, R]{stream: stream, taken: taken, window: window, changed: make(chan struct{})}
}

// change wakes all waiters. mu is held.
func (e *End[S, R]) change() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// Run reads until the stream ends. Recv and Send then return its error. A peer that sends more than the window has to wait.
func (e *End[S, R]) Run(ctx context.Context) {
	for {
		m, err := e.stream.Recv()
		e.mu.Lock()
		if err == nil {
			err = e.take(ctx, m)
		}
		e.err = err
		e.change()
		e.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// take counts an acknowledgement, or queues a message once the window has room for it. mu is held.
func (e *End[S, R]) take(ctx context.Context, m R) error {
	if n := m.GetTaken(); n > 0 {
		e.underWay = max(0, e.underWay-n)
		return nil
	}
	size := weight(m)
	err := e.await(ctx, func() bool { return e.window == 0 || e.queued == 0 || e.queued+size <= e.window })
	if err == nil {
		e.queue, e.queued = append(e.queue, m), e.queued+size
	}
	return err
}

// await waits until so returns true. mu is held when so runs, before and after.
func (e *End[S, R]) await(ctx context.Context, so func() bool) error {
	for !so() {
		changed := e.changed
		e.mu.Unlock()
		select {
		case <-changed:
			e.mu.Lock()
		case <-ctx.Done():
			e.mu.Lock()
			return ctx.Err()
		}
	}
	return nil
}

// Recv returns the next message and marks the previous one as consumed. After the last message it returns the error that
// ended the stream, which is io.EOF if the peer closed it.
func (e *End[S, R]) Recv(ctx context.Context) (m R, err error) {
	e.owed, e.last = e.owed+e.last, 0
	if e.window > 0 && e.owed >= e.window/4 {
		bytes := e.owed
		e.owed = 0
		_ = e.send(e.taken(bytes)) // Run sees the error; queued messages are still returned
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.await(ctx, func() bool { return len(e.queue) > 0 || e.err != nil }); err != nil {
		return m, err
	}
	if len(e.queue) == 0 {
		return m, e.err
	}
	m = e.queue[0]
	var none R
	e.queue[0] = none
	e.queue = e.queue[1:]
	e.last = weight(m)
	e.queued -= e.last
	e.change()
	return m, nil
}

// Send sends a message once the window has room for it.
func (e *End[S, R]) Send(ctx context.Context, m S) error {
	if err := e.reserve(ctx, weight(m)); err != nil {
		return err
	}
	if err := e.send(m); err != nil {
		return e.ending(err)
	}
	return nil
}

func (e *End[S, R]) reserve(ctx context.Context, size int64) error {
	if e.window == 0 {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.await(ctx, func() bool { return e.err != nil || e.underWay < e.window/4 || e.underWay+size <= e.window })
	switch {
	case err != nil:
		return err
	case e.err != nil:
		return fmt.Errorf("the stream has ended: %w", e.err)
	}
	e.underWay += size
	return nil
}

func (e *End[S, R]) send(m S) error {
	e.sending.Lock()
	defer e.sending.Unlock()
	return e.stream.Send(m)
}

// ending returns the error that ended the stream, if known, since it says more than the error of a failed send.
func (e *End[S, R]) ending(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return e.err
	}
	return err
}
