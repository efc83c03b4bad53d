// Package flow bounds what is under way on a stream of messages between two programs, each way. It stands beside the
// straight line, where a server and an agent pass on what a command or a connection says.
//
// gRPC alone does not do it: a server behind net/http reads a call's messages as fast as they come and keeps them, and a
// receiver that stops reading hears no longer that the stream has ended. So each side counts what it has sent and the
// other is not yet done with, and stops at a window that both know.
//
//   - A side that receives always reads on: what may come is bounded by the window, so it has room for it.
//   - What Recv returned counts as taken with the next call of Recv, and is told to the other side then, by the quarter
//     of a window.
//   - A message too large for the window goes when less than a quarter is under way, of which nobody may ever hear.
package flow

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
)

// Message is what a stream carries; Taken is how many bytes its sender is done with, 0 in most.
type Message interface {
	proto.Message
	GetTaken() int64
}

// overhead is what a message takes beside its bytes: it keeps many small ones from costing nothing.
const overhead = 64

func weight(m Message) int64 { return int64(proto.Size(m)) + overhead }

// Stream is a gRPC stream of which one side sends S and receives R.
type Stream[S, R Message] interface {
	Send(m S) error
	Recv() (R, error)
}

// End is one side of a stream. One goroutine calls Run, one at a time Recv, any Send.
type End[S, R Message] struct {
	stream Stream[S, R]
	taken  func(bytes int64) S // makes the message that says so
	window int64

	sending sync.Mutex // held while sending: gRPC allows one sender at a time

	mu       sync.Mutex
	changed  chan struct{} // closed at the next change of what follows
	underWay int64         // bytes sent and not taken yet
	queue    []R
	queued   int64 // bytes in queue
	err      error // the end of the stream, once it is read

	// Only Recv uses these.
	last int64 // bytes of what it returned before
	owed int64 // bytes taken that the other side has not heard of
}

// New returns one side of a stream. taken makes the message that says how many bytes are taken. The other side must
// have the same window, in bytes; 0 sets no bound and tells nothing, as with a side that knows no windows.
func New[S, R Message](stream Stream[S, R], window int64, taken func(bytes int64) S) *End[S, R] {
	return &End[S, R]{stream: stream, taken: taken, window: window, changed: make(chan struct{})}
}

// change wakes all that wait; mu is held.
func (e *End[S, R]) change() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// Run reads until the stream is at its end, which Recv and Send then return. A side that sends more than the window is
// held up.
func (e *End[S, R]) Run(ctx context.Context) {
	for {
		m, err := e.stream.Recv()
		e.mu.Lock()
		if err != nil {
			e.err = err
			e.change()
			e.mu.Unlock()
			return
		}
		if n := m.GetTaken(); n > 0 {
			e.underWay = max(0, e.underWay-n)
			e.change()
			e.mu.Unlock()
			continue
		}
		size := weight(m)
		if err := e.await(ctx, func() bool { return e.window == 0 || e.queued == 0 || e.queued+size <= e.window }); err != nil {
			e.err = err
			e.change()
			e.mu.Unlock()
			return
		}
		e.queue, e.queued = append(e.queue, m), e.queued+size
		e.change()
		e.mu.Unlock()
	}
}

// await waits for what is so under mu, which is held before and after.
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

// Recv returns the next message; what it returned before counts as taken now. After the last it returns what ended the
// stream: io.EOF where the other side closed it.
func (e *End[S, R]) Recv(ctx context.Context) (m R, err error) {
	e.owed, e.last = e.owed+e.last, 0
	if e.window > 0 && e.owed >= e.window/4 {
		bytes := e.owed
		e.owed = 0
		_ = e.send(e.taken(bytes)) // where it fails Run hears why, and what came before is still to be taken
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

// Send sends a message once there is room for it in the window.
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

// ending is why a send failed: what ended the stream says more than that it has ended.
func (e *End[S, R]) ending(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return e.err
	}
	return err
}
