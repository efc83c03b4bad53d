package apiserver

import (
	"context"
	"io"
	"net/http"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// readAheadLimit is how many bytes of a call's messages are read before its handler asks for them.
const readAheadLimit = 256 << 10

// readAhead bounds a call's body: gRPC over net/http reads it as fast as it comes and keeps it until the handler takes
// it, so that a caller who sends to a command that does not read would fill the server's memory. Held back here, HTTP/2
// holds the caller back. Agents do without: a bound on one of their streams would hold up the heartbeats beside it, and
// package flow bounds them.
type readAhead struct {
	io.ReadCloser

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of what follows
	ahead   int64         // bytes read and not taken
	waiting bool          // the handler waits for a message
	closed  bool
}

type readAheadKey struct{}

// boundReadAhead puts a bound on calls that may send much.
func boundReadAhead(r *http.Request) *http.Request {
	if m, ok := methods[r.URL.Path]; !ok || !m.bulk {
		return r
	}
	body := &readAhead{ReadCloser: r.Body, changed: make(chan struct{})}
	r = r.WithContext(context.WithValue(r.Context(), readAheadKey{}, body))
	r.Body = body
	return r
}

func (b *readAhead) change(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	close(b.changed)
	b.changed = make(chan struct{})
}

// Read reads on where there is room, and always for a handler that waits.
func (b *readAhead) Read(p []byte) (int, error) {
	for {
		b.mu.Lock()
		held, changed := b.ahead >= readAheadLimit && !b.waiting && !b.closed, b.changed
		b.mu.Unlock()
		if !held {
			break
		}
		<-changed
	}
	n, err := b.ReadCloser.Read(p)
	b.change(func() { b.ahead += int64(n) })
	return n, err
}

// Close ends the call's body, and the wait for room.
func (b *readAhead) Close() error {
	b.change(func() { b.closed = true })
	return b.ReadCloser.Close()
}

// frameHeader is what gRPC puts before each message.
const frameHeader = 5

// receive takes a message of a call, and makes room for as much.
func receive(ss grpc.ServerStream, m any) error {
	b, _ := ss.Context().Value(readAheadKey{}).(*readAhead)
	if b == nil {
		return ss.RecvMsg(m)
	}
	b.change(func() { b.waiting = true })
	err := ss.RecvMsg(m)
	taken := int64(frameHeader)
	if msg, ok := m.(proto.Message); ok && err == nil {
		taken += int64(proto.Size(msg))
	}
	b.change(func() { b.waiting, b.ahead = false, max(0, b.ahead-taken) })
	return err
}
