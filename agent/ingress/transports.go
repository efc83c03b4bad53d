package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/peer"
	"github.com/caravanserai/cara/api"
)

// flushAfter is how long a part of a response with known length may wait for more data. Responses of unknown length, such as
// event streams, are flushed immediately.
const flushAfter = 20 * time.Millisecond

// transports are the connections for outgoing requests.
//
// A service may close an idle connection just when a request is sent on it, and a request that changes something must not be
// repeated. Idle timeouts of services start at a few seconds, so connections to containers, which are cheap to open, are
// kept for less than that. Other agents keep theirs for minutes, and so does this one.
type transports struct {
	near, far               *http.Transport
	nearStreams, farStreams *http.Transport // for services that speak H2C
}

const (
	nearIdle = 1500 * time.Millisecond
	farIdle  = time.Minute
)

func newTransports(l Limits, dialPeer func(ctx context.Context, node string, protocols ...string) (net.Conn, error)) *transports {
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
			MaxIdleConnsPerHost:    256,
			IdleConnTimeout:        idle,
			DisableCompression:     true, // responses pass unchanged
		}
	}
	far := way(farIdle)
	far.DialContext = nil
	// The host of a request to another agent is the node's name, so connections are pooled by node: a connection that was
	// verified for one node is never used for another node that reports the same address.
	hop := func(protocols ...string) func(ctx context.Context, _, host string) (net.Conn, error) {
		return func(ctx context.Context, _, host string) (net.Conn, error) {
			node, _, err := net.SplitHostPort(host)
			if err != nil {
				return nil, err
			}
			return dialPeer(ctx, node, protocols...)
		}
	}
	far.DialTLSContext = hop()
	t := &transports{near: way(nearIdle), far: far, nearStreams: way(nearIdle), farStreams: way(farIdle)}
	for _, streams := range []*http.Transport{t.nearStreams, t.farStreams} {
		streams.Protocols = new(http.Protocols)
		streams.ResponseHeaderTimeout = 0 // a service may answer a stream whenever it likes; pings detect one that is gone
	}
	t.nearStreams.HTTP2, t.farStreams.HTTP2 = streamsOut(l, nearStreamBuffer), streamsOut(l, farStreamBuffer)
	t.nearStreams.Protocols.SetUnencryptedHTTP2(true)
	t.farStreams.Protocols.SetHTTP2(true)
	t.farStreams.DialContext = nil
	t.farStreams.DialTLSContext = hop(http2Protocol)
	return t
}

// http2Protocol is the ALPN name of HTTP/2.
const http2Protocol = "h2"

// noCommonProtocol is in the error about the alert of a TLS server that speaks none of the protocols of its client. crypto/tls does not
// export a type for it.
const noCommonProtocol = "no application protocol"

// unreachable means that the connection to another node's agent failed, so the request was not sent.
type unreachable struct {
	node, address string
	err           error
	outdated      bool // the agent speaks none of the protocols
}

func (u *unreachable) Error() string {
	return fmt.Sprintf("reach the agent of node %s at %q: %v", u.node, u.address, u.err)
}

func (u *unreachable) Unwrap() error { return u.err }

// dialPeer connects to another node's agent and verifies its identity. The other agent must speak one of the protocols; without
// any, it speaks HTTP/1.1.
func (i *Ingress) dialPeer(ctx context.Context, node string, protocols ...string) (net.Conn, error) {
	address := i.table.Load().agents[node]
	if i.cfg.Peers == nil || address == "" {
		return nil, &unreachable{node: node, address: address, err: errors.New("its address is not known")}
	}
	ctx, cancel := context.WithTimeout(ctx, i.cfg.Limits.Dial)
	defer cancel()
	raw, err := peer.Connect(ctx, address)
	if err != nil {
		return nil, &unreachable{node: node, address: address, err: err}
	}
	config := i.cfg.Peers.Dial(node)
	config.NextProtos = protocols
	secured := tls.Client(&conn{Conn: raw, stall: i.cfg.Limits.Stall}, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // errors do not matter: it is abandoned
		return nil, &unreachable{node: node, address: address, err: err, outdated: strings.Contains(err.Error(), noCommonProtocol)}
	}
	return secured, nil
}

// to returns the transport for a backend.
func (w *transports) to(b *backend) *http.Transport {
	switch streams := b.GetProtocol() == api.TargetH2C; {
	case b.remote && streams:
		return w.farStreams
	case streams:
		return w.nearStreams
	case b.remote:
		return w.far
	}
	return w.near
}

func (w *transports) close() {
	for _, t := range []*http.Transport{w.near, w.far, w.nearStreams, w.farStreams} {
		t.CloseIdleConnections()
	}
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
