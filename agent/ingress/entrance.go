package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/caravanserai/cara/api"
)

// Listeners are where an Ingress serves. Those of public hosts are optional.
type Listeners struct {
	// Internal serves all hosts to clients, and other agents.
	Internal net.Listener
	// PublicHTTP and PublicHTTPS serve public hosts.
	PublicHTTP, PublicHTTPS net.Listener
}

// Close closes the listeners.
func (l Listeners) Close() {
	for _, one := range []net.Listener{l.Internal, l.PublicHTTP, l.PublicHTTPS} {
		if one != nil {
			_ = one.Close() // it may be closed already
		}
	}
}

// Capabilities returns what an agent with these listeners tells the server.
func (l Listeners) Capabilities() []string {
	if l.PublicHTTP != nil || l.PublicHTTPS != nil {
		return []string{api.CapabilityIngress, api.CapabilityPublicIngress}
	}
	return []string{api.CapabilityIngress}
}

// side is where a request arrives.
type side int

const (
	insideHTTP  side = iota // the internal listener
	publicHTTP              // the public listener of plain HTTP
	publicHTTPS             // the public listener of HTTPS
)

// entrance is one listener. Each has its own connections and limits, so a crowd at one does not close the others.
type entrance struct {
	ingress *Ingress
	at      side
	clients *connections
}

func newEntrance(i *Ingress, at side) *entrance {
	return &entrance{ingress: i, at: at, clients: newConnections(i.cfg.Limits, i.cfg.Logger)}
}

// ServeHTTP answers one request. Only the internal listener has other agents, and believes what they say about a client.
func (e *entrance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, request: r, begun: time.Now(), at: e.at, public: e.at != insideHTTP}
	if e.at == insideHTTP {
		x.via = e.ingress.cfg.Peers.Node(r.TLS)
		x.public = x.via != "" && r.Header.Get(headerScope) == api.ScopePublic
	}
	defer e.countStream(x)()
	e.ingress.answer(x, r)
}

// run serves on the listener until ctx ends.
func (e *entrance) run(ctx context.Context, l net.Listener) error {
	srv, secured := e.server(ctx)
	in := newListener(l, e.ingress.cfg.Limits, e.clients, secured)
	in.always, in.from = e.at == publicHTTPS, e.ingress.cfg.ProxyProtocolFrom
	in.peek, in.pass = func(c *conn) { e.peek(ctx, c) }, func(c *conn) bool { return e.pass(ctx, c) }
	var accepting sync.WaitGroup
	accepting.Go(in.run)
	defer accepting.Wait()
	defer in.end(net.ErrClosed)
	drained := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err := srv.Shutdown(drain)
		if errors.Is(err, context.DeadlineExceeded) {
			err = srv.Close() // an open WebSocket must not delay the shutdown further
		}
		drained <- err
	})
	err := srv.Serve(in)
	if stop() { // Serve ended before ctx
		return fmt.Errorf("serve ingress on %s: %w", l.Addr(), err)
	}
	return <-drained
}

// server returns the HTTP server of the listener, and the TLS configuration of its connections that begin with TLS.
func (e *entrance) server(ctx context.Context) (*http.Server, *tls.Config) {
	limits := e.ingress.cfg.Limits
	srv := &http.Server{
		Handler:           e,
		ReadHeaderTimeout: limits.Header,
		IdleTimeout:       limits.Idle,
		MaxHeaderBytes:    limits.HeaderBytes,
		ErrorLog:          slog.NewLogLogger(e.ingress.cfg.Logger.Handler(), slog.LevelDebug),
		ConnState:         e.clients.changed,
		Protocols:         new(http.Protocols),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, connOf(c))
		},
	}
	srv.Protocols.SetHTTP1(true)
	switch e.at {
	case publicHTTPS:
		srv.Protocols.SetHTTP2(true)
		srv.HTTP2 = streamsIn(limits, publicStreams, publicStreamBuffer, publicConnectionBuffer)
		return srv, e.ingress.credentials.certificates.Config()
	case insideHTTP:
		// gRPC clients inside use HTTP/2 without TLS, and other agents use it with TLS.
		srv.Protocols.SetUnencryptedHTTP2(true)
		srv.Protocols.SetHTTP2(true)
		srv.HTTP2 = streamsIn(limits, internalStreams, nearStreamBuffer, internalStreams*nearStreamBuffer)
		if e.ingress.cfg.Peers == nil {
			return srv, nil
		}
		peers := e.ingress.cfg.Peers.Accept()
		e.ingress.acceptStreams(ctx, srv, peers)
		return srv, peers
	case publicHTTP:
	}
	return srv, nil
}
