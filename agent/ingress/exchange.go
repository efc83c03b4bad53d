package ingress

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// statusClientGone is what a request counts as whose client left before it got an answer. Nothing is sent.
const statusClientGone = 499

// exchange is one request and its answer, and what is known of them when they are over.
type exchange struct {
	http.ResponseWriter
	request *http.Request
	begun   time.Time
	via     string // the verified node whose agent passed it on; empty: it came from a client

	route    *carav1.Route // nil: nobody claims the host
	series   *series       // nil: nobody counts
	status   int           // 0: not answered yet
	upgraded bool
	sent     atomic.Int64 // bytes of the answer's body, or to the client after an upgrade
	received atomic.Int64 // bytes of the request's body, or from the client after an upgrade
	stalled  atomic.Bool  // the request's body stopped coming
}

// ServeHTTP routes one request by its Host header.
func (i *Ingress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, request: r, begun: time.Now(), via: i.cfg.Peers.Node(r.TLS)}
	whole := false
	defer i.over(r.Context(), x, &whole) // an answer that breaks off comes here as a panic
	in := r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	if r.ContentLength != 0 {
		p := bodyDeadline{control: http.NewResponseController(w), stall: i.cfg.Limits.Stall}
		if err := p.extend(); err != nil {
			panic(http.ErrAbortHandler) // the connection is gone
		}
		in.Body = &body{ReadCloser: r.Body, x: x, bodyDeadline: p}
	}
	switch {
	case r.Host == "": // HTTP/1.0 may leave it out
		page(x, r, http.StatusBadRequest, "The request names no host.")
	case r.Method == http.MethodConnect:
		page(x, r, http.StatusMethodNotAllowed, "This is no proxy for others.")
	default:
		i.serve(x, in)
	}
	if x.status == 0 {
		panic(http.ErrAbortHandler) // nobody has answered: net/http would say 200 in the service's place
	}
	whole = true
}

type exchangeKey struct{}

// exchangeOf finds the exchange that a request belongs to, on its way in or out.
func exchangeOf(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }

// found notes where the request leads.
func (i *Ingress) found(x *exchange, route *carav1.Route) {
	x.route = route
	x.series = i.metrics.of(x)
	x.series.begin()
}

// over counts and logs a request.
func (i *Ingress) over(ctx context.Context, x *exchange, whole *bool) {
	if x.status == 0 {
		x.status = statusClientGone
	}
	took := time.Since(x.begun)
	i.metrics.count(x, took)
	i.access.add(ctx, x, took, *whole)
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader takes in the status. Those below 200 come before the one that counts, but for the end of HTTP.
func (x *exchange) WriteHeader(status int) {
	if status == http.StatusContinue {
		return // the body is asked for by reading it: passing on the service's word, too, would say it twice
	}
	if x.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.ResponseWriter.Write(p)
	x.sent.Add(int64(n))
	return n, err
}

// Hijack gives the connection away, and goes on counting what passes.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, buffered, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	x.status, x.upgraded = http.StatusSwitchingProtocols, true
	return &counted{Conn: c, x: x}, buffered, nil
}

// counted is a connection after an upgrade.
type counted struct {
	net.Conn
	x *exchange
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.x.received.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.x.sent.Add(int64(n))
	return n, err
}

// CloseWrite passes on that one side has said all.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// body is a request's, with a limit on how long it stands still. The transport reads it, also after the answer came.
type body struct {
	io.ReadCloser
	x            *exchange
	bodyDeadline bodyDeadline
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.bodyDeadline.extend(); err != nil {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	b.x.received.Add(int64(n))
	var late net.Error
	switch {
	case err == io.EOF:
		dropClaims(b.x.request.Trailer) // they are complete now, and are passed on next
		if ended := b.bodyDeadline.end(); ended != nil {
			return n, ended
		}
	case errors.As(err, &late) && late.Timeout():
		b.x.stalled.Store(true)
	}
	return n, err
}
