package ingress

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// flushAfter is how long a part of an answer of known length may wait for the next. Answers of unknown length, such as
// event streams, pass as they come.
const flushAfter = 20 * time.Millisecond

// transports are the connections that requests leave by.
//
// A service may close a connection that is idle just when a request is sent on it, and one that changes something must
// not be sent again. Services' own idle times begin at a few seconds, so connections to containers, which are cheap to
// make, are not kept that long. Other agents keep theirs for minutes, and so does this one.
type transports struct{ near, far *http.Transport }

const (
	nearIdle = 1500 * time.Millisecond
	farIdle  = time.Minute
)

func newTransports(l Limits) *transports {
	dialer := &net.Dialer{Timeout: l.Dial, KeepAlive: 30 * time.Second}
	way := func(idle time.Duration) *http.Transport {
		return &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dialer.DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return &conn{Conn: c, stall: l.Stall}, nil
			},
			ResponseHeaderTimeout:  l.Answer,
			ExpectContinueTimeout:  time.Second, // a service that does not know of it gets the body after that
			MaxResponseHeaderBytes: l.AnswerHeaderBytes,
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        idle,
			DisableCompression:     true, // what the service said passes unchanged
		}
	}
	return &transports{near: way(nearIdle), far: way(farIdle)}
}

// RoundTrip sends a request to where it was routed.
func (w *transports) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Context().Value(backendKey{}).(backend).remote {
		return w.far.RoundTrip(r)
	}
	return w.near.RoundTrip(r)
}

func (w *transports) close() {
	w.near.CloseIdleConnections()
	w.far.CloseIdleConnections()
}

// buffers lends what bodies are copied through.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

// Get lends one.
func (b *buffers) Get() []byte { return b.pool.Get().(*[bufferSize]byte)[:] }

// Put takes it back.
func (b *buffers) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }
