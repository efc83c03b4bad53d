package ingress

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// statusClientGone is the recorded status of a request whose client left before the response. It is never sent.
const statusClientGone = 499

// exchange is one request and its response, with what the log and metrics need.
type exchange struct {
	http.ResponseWriter
	request *http.Request
	begun   time.Time
	via     string // the verified node that forwarded it; empty if it came from a client
	at      side   // where it arrived
	public  bool   // it arrived at a public listener, here or at the agent that forwarded it
	excess  bool   // its client has too many streams

	route    *carav1.Route // nil if no project claims the host
	backend  *backend      // nil if no service is to get the request
	series   *series       // nil if no host leads to the service any more, or no project claims the host
	user     string        // the client, if it has given the right password
	status   int           // 0 before the response
	upgraded bool
	sent     atomic.Int64 // bytes of the response body, or to the client after an upgrade
	received atomic.Int64 // bytes of the request body, or from the client after an upgrade
	stalled  atomic.Bool  // the request body stopped arriving
	due      atomic.Int64 // when more of the request body must have arrived, in ns; 0: no limit
	left     atomic.Bool  // the rest of the request body is not wanted
	cut      bool         // the service broke off its response

	mu       sync.Mutex
	finished bool // the handler has returned, or is about to
}

// finish ends the use of the ResponseWriter for deadlines. The transport may still read the body, but net/http allows no call then.
func (x *exchange) finish() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.finished = true
}

// limitBody sets until when more of the request body must arrive.
func (x *exchange) limitBody(due time.Time) error {
	if due.IsZero() {
		x.due.Store(0)
	} else {
		x.due.Store(due.UnixNano())
	}
	return x.setReadDeadline(due)
}

// stoodStill reports whether the request body stopped arriving. With HTTP/1.1, net/http cancels the request before the read of the
// body returns.
func (x *exchange) stoodStill() bool {
	due := x.due.Load()
	return x.stalled.Load() || due != 0 && x.request.Context().Err() != nil && time.Now().UnixNano() >= due
}

// setReadDeadline sets the deadline of reads of the request's body.
func (x *exchange) setReadDeadline(t time.Time) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.finished {
		return http.ErrBodyReadAfterClose
	}
	return http.NewResponseController(x.ResponseWriter).SetReadDeadline(t)
}

// answer routes one request by its Host header.
func (i *Ingress) answer(x *exchange, r *http.Request) {
	whole := false
	defer x.finish()
	defer i.over(r.Context(), x, &whole) // an aborted response arrives here as a panic
	in := r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	if r.ContentLength != 0 {
		p := bodyDeadline{set: x.limitBody, stall: i.cfg.Limits.Stall}
		if r.ProtoMajor == 1 { // net/http reads what the handler leaves, before the next request
			if err := p.extend(); err != nil {
				panic(http.ErrAbortHandler) // the connection is closed
			}
		}
		in.Body = &body{ReadCloser: r.Body, x: x, bodyDeadline: p}
	}
	switch {
	case x.excess:
		page(x, r, http.StatusServiceUnavailable, "There are too many requests of this client at once. Wait until some have ended.")
	case r.Host == "": // HTTP/1.0 may omit it
		page(x, r, http.StatusBadRequest, "The request names no host.")
	case r.Method == http.MethodConnect:
		page(x, r, http.StatusMethodNotAllowed, "This is no proxy for others.")
	case x.at == publicHTTPS && hostname(r.Host) != strings.ToLower(r.TLS.ServerName):
		page(x, r, http.StatusMisdirectedRequest, "This connection was opened for another host. Open a new one for this host.")
	case x.at == publicHTTP && i.validated(x, r):
	default:
		i.serve(x, in)
	}
	if x.status == 0 {
		panic(http.ErrAbortHandler) // without a response, net/http would send 200 for the service
	}
	whole = !x.cut
}

type exchangeKey struct{}

// exchangeOf returns the exchange of an incoming or outgoing request.
func exchangeOf(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }

func (i *Ingress) over(ctx context.Context, x *exchange, whole *bool) {
	took := time.Since(x.begun)
	if ctx.Err() != nil {
		x.reset(ctx, took)
	}
	x.status = cmp.Or(x.status, statusClientGone)
	i.metrics.count(x, took)
	i.access.add(ctx, x, took, *whole)
}

// Unwrap supports http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader records the final status. Statuses below 200 are informational, except for 101, which ends HTTP.
func (x *exchange) WriteHeader(status int) {
	if status == http.StatusContinue {
		return // net/http sends it when the body is read; the service's own would be a duplicate
	}
	if x.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		x.status = status
		x.hsts()
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(p []byte) (int, error) {
	x.status = cmp.Or(x.status, http.StatusOK)
	n, err := x.writeBody(p)
	x.sent.Add(int64(n))
	return n, err
}

// Hijack takes over the connection and keeps counting its bytes.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, buffered, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	x.status, x.upgraded = http.StatusSwitchingProtocols, true
	return &counted{Conn: c, x: x}, buffered, nil
}

// counted is an upgraded connection.
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

// CloseWrite passes on the end of one direction.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// body is a request body with a timeout for no progress. The transport may read it even after the response has arrived. With HTTP/2 the
// timeout begins with the first read, since a deadline that has passed once ends a stream's body for good.
type body struct {
	io.ReadCloser
	x            *exchange
	bodyDeadline bodyDeadline
	silent       bool // there is no deadline
}

func (b *body) Read(p []byte) (int, error) {
	if !b.silent {
		if err := b.bodyDeadline.extend(); err != nil {
			return 0, err
		}
	}
	n, err := b.ReadCloser.Read(p)
	b.x.received.Add(int64(n))
	var late net.Error
	switch {
	case err == io.EOF:
		dropClaims(b.x.request.Trailer)                             // they are complete now, and are sent next
		if ended := b.bodyDeadline.set(time.Time{}); ended != nil { // from now on net/http detects whether the client is still there
			return n, ended
		}
	case errors.As(err, &late) && late.Timeout() && !b.x.left.Load():
		b.x.stalled.Store(true)
	}
	return n, err
}

// allowSilence removes the limit on a body that does not arrive. A stream may be silent, and pings detect a client that is gone.
// It is called before the body is read.
func allowSilence(r *http.Request) {
	if b, ok := r.Body.(*body); ok && r.ProtoMajor == 2 {
		b.silent = true
	}
}
