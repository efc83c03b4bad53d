package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// flushAfter is how long a part of a response with known length may wait for more data. Responses of unknown length, such as
// event streams, are flushed immediately.
const flushAfter = 20 * time.Millisecond

// transports are the connections for outgoing requests.
//
// A service may close an idle connection just when a request is sent on it, and a request that changes something must not be
// repeated. Idle timeouts of services start at a few seconds, so connections to containers, which are cheap to open, are
// kept for less than that. Other agents keep theirs for minutes, and so does this one.
type transports struct{ near, far *http.Transport }

const (
	nearIdle = 1500 * time.Millisecond
	farIdle  = time.Minute
)

func newTransports(l Limits, dialPeer func(ctx context.Context, node string) (net.Conn, error)) *transports {
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
			ExpectContinueTimeout:  time.Second, // a service that does not support it gets the body after that
			MaxResponseHeaderBytes: l.AnswerHeaderBytes,
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        idle,
			DisableCompression:     true, // responses pass unchanged
		}
	}
	far := way(farIdle)
	far.DialContext = nil
	// The host of a request to another agent is the node's name, so connections are pooled by node: a connection that was
	// verified for one node is never used for another node that reports the same address.
	far.DialTLSContext = func(ctx context.Context, _, host string) (net.Conn, error) {
		node, _, err := net.SplitHostPort(host)
		if err != nil {
			return nil, err
		}
		return dialPeer(ctx, node)
	}
	return &transports{near: way(nearIdle), far: far}
}

// unreachable means that the connection to another node's agent failed, so the request was not sent.
type unreachable struct {
	node, address string
	err           error
}

func (u *unreachable) Error() string {
	return fmt.Sprintf("reach the agent of node %s at %q: %v", u.node, u.address, u.err)
}

func (u *unreachable) Unwrap() error { return u.err }

// dialPeer connects to another node's agent and verifies its identity.
func (i *Ingress) dialPeer(ctx context.Context, node string) (net.Conn, error) {
	address := i.table.Load().agents[node]
	if i.cfg.Peers == nil || address == "" {
		return nil, &unreachable{node, address, errors.New("its address is not known")}
	}
	ctx, cancel := context.WithTimeout(ctx, i.cfg.Limits.Dial)
	defer cancel()
	raw, err := (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, &unreachable{node, address, err}
	}
	secured := tls.Client(&conn{Conn: raw, stall: i.cfg.Limits.Stall}, i.cfg.Peers.Dial(node))
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // errors do not matter: it is abandoned
		return nil, &unreachable{node, address, err}
	}
	return secured, nil
}

// RoundTrip sends a request on the transport of its route.
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

// buffers is the pool of copy buffers.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

func newBuffers() *buffers {
	return &buffers{sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

// Get returns a buffer.
func (b *buffers) Get() []byte { return b.pool.Get().(*[bufferSize]byte)[:] }

// Put returns a buffer to the pool.
func (b *buffers) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }
