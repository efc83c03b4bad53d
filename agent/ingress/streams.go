package ingress

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// The streams of an HTTP/2 connection share its receive buffer, and a stream whose data is not read occupies its part. Streams of
// different clients share the connections to a service and to another agent. There, the buffer of the connection has room for all
// of its streams, so that no stream waits for another. The streams of a public connection belong to one client.
const (
	publicStreams, internalStreams = 250, 1000

	nearStreamBuffer       = 64 << 10
	farStreamBuffer        = 256 << 10
	publicStreamBuffer     = 256 << 10
	publicConnectionBuffer = 1 << 20
)

// streamsIn limits the HTTP/2 connections of a listener. Pings detect a client that is gone, since a stream may be silent.
func streamsIn(l Limits, streams, each, all int) *http.HTTP2Config {
	c := streamsOut(l, each)
	c.MaxConcurrentStreams, c.MaxReceiveBufferPerConnection = streams, all
	return c
}

// streamsOut limits HTTP/2 connections to services and to other agents. net/http opens another connection if one has as many
// streams as the other side allows.
func streamsOut(l Limits, each int) *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxReadFrameSize:          64 << 10,
		MaxReceiveBufferPerStream: each,
		SendPingTimeout:           l.Idle,
		PingTimeout:               l.Header,
		WriteByteTimeout:          l.Stall,
	}
}

// A client that opens streams and resets them at once makes work for the agent and for services, beyond what the number of its
// streams limits. So its connection is closed if it does that too often. Streams that were open for quickReset do not count.
const (
	quickReset      = time.Second
	resets          = 1000 // at once
	resetsPerSecond = 200
)

type connKey struct{}

// reset counts a stream that its client has reset. The connections of other agents carry the streams of many clients, whose own
// connections are limited.
func (x *exchange) reset(ctx context.Context, after time.Duration) {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok || c.set == nil || x.request.ProtoMajor != 2 || x.via != "" || after >= quickReset || c.resets.Allow() {
		return
	}
	if unsaid, ok := c.set.refusals.Say(time.Now()); ok {
		c.set.log.Warn("connection closed: its client resets too many HTTP/2 streams", "remote", c.RemoteAddr(), "limit", resets, "unsaid", unsaid)
	}
	_ = c.Close() // errors do not matter: it is abandoned
}

// countStream counts a stream of HTTP/2 until the returned func is called. The connections of a client limit its requests of
// HTTP/1.1 only: over HTTP/2 each connection carries hundreds, and each of those may have a connection to a service. So a client
// may have as many streams as connections. What is beyond that gets 503. The connection is closed if these answers wait, too,
// because the client does not read them. The connections of other agents carry the streams of many clients.
func (e *entrance) countStream(x *exchange) (leave func()) {
	c, ok := x.request.Context().Value(connKey{}).(*conn)
	if !ok || c.set == nil || x.request.ProtoMajor != 2 || x.via != "" {
		return func() {}
	}
	if _, ok := c.set.streams.Enter(c.from); ok {
		return func() { c.set.streams.Leave(c.from) }
	}
	if unsaid, ok := c.set.refusals.Say(time.Now()); ok {
		c.set.log.Warn("request refused: its client has too many HTTP/2 streams", "remote", c.RemoteAddr(), "limit", c.set.each, "unsaid", unsaid)
	}
	if _, ok := c.set.excess.Enter(c.from); ok {
		x.excess = true
		return func() { c.set.excess.Leave(c.from) }
	}
	_ = c.Close() // errors do not matter: it is abandoned
	panic(http.ErrAbortHandler)
}

// recordBody makes the transport able to send a request again. It does that if the other side has refused the stream, or has closed the
// connection and said that it has not seen the request. all counts the bytes of all recordings. The result is nil if the request has no
// body.
func recordBody(r *http.Request, all *atomic.Int64) *recording {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	x := exchangeOf(r)
	rec := &recording{body: r.Body, all: all, stop: func() error {
		x.left.Store(true)
		return x.setReadDeadline(time.Unix(1, 0))
	}}
	r.Body = &recorded{from: rec}
	r.GetBody = rec.again
	return rec
}

// Limits of what is kept to send it again, in bytes.
const (
	maxRecorded    = 64 << 10 // of one body
	maxRecordedAll = 64 << 20 // of all bodies
)

// recording is a request body that can be sent again if it has ended and is small, as those of most unary calls.
type recording struct {
	body io.Reader
	stop func() error  // makes reads of body fail, also a pending one
	all  *atomic.Int64 // bytes of all recordings

	mu    sync.Mutex
	begun bool   // body is read, or was
	seen  []byte // all of body so far, unless it is lost
	ended bool
	lost  bool // seen is incomplete
}

var errNotRecorded = errors.New("the request's body is not complete, or too large to be sent again")

// again returns the body from its beginning.
func (r *recording) again() (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun && (r.lost || !r.ended) {
		return nil, errNotRecorded
	}
	return &recorded{from: r}, nil
}

// gone reports whether the body can never be sent again. A nil recording has no body.
func (r *recording) gone() bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// forget frees the memory. The request will not be sent again. A nil recording has no body.
func (r *recording) forget() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lose()
}

// lose frees the memory. mu is held.
func (r *recording) lose() {
	r.all.Add(-int64(len(r.seen)))
	r.seen, r.lost = nil, true
}

func (r *recording) add(p []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = r.ended || errors.Is(err, io.EOF)
	if r.lost {
		return
	}
	r.seen = append(r.seen, p...)
	if r.all.Add(int64(len(p))) > maxRecordedAll || len(r.seen) > maxRecorded {
		r.lose()
	}
}

// recorded reads a recording. The transport reads one at a time.
type recorded struct {
	from *recording
	read int // bytes
}

func (b *recorded) Read(p []byte) (int, error) {
	b.from.mu.Lock()
	if b.from.ended && !b.from.lost { // only then is there a second reader
		defer b.from.mu.Unlock()
		if b.read == len(b.from.seen) {
			return 0, io.EOF
		}
		n := copy(p, b.from.seen[b.read:])
		b.read += n
		return n, nil
	}
	b.from.begun = true
	b.from.mu.Unlock()
	n, err := b.from.body.Read(p)
	b.from.add(p[:n], err)
	b.read += n
	return n, err
}

// Close ends a pending read. httputil.ReverseProxy does not let the transport close the body of the client. But if a stream of
// HTTP/2 fails, the transport waits until the body is closed before it reports the failure.
func (b *recorded) Close() error {
	b.from.mu.Lock()
	whole := b.from.ended || !b.from.begun
	b.from.mu.Unlock()
	if whole {
		return nil
	}
	b.from.forget()
	return b.from.stop()
}
