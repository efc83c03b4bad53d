package apiserver

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/peers"
	"github.com/caravanserai/cara/apiserver/rest"
	"github.com/caravanserai/cara/apiserver/ui"
	"github.com/caravanserai/cara/internal/connlimit"
)

const (

	// maxStrangerAnswers is how many unauthenticated requests of one address get an answer with a body at a time. The
	// others get only the status, which a client cannot block by not reading.
	maxStrangerAnswers = 16
	// maxFilling is how many calls wait for the cache while the server starts.
	maxFilling = 1024
)

// door handles every request first. It authenticates and authorises the caller from the headers and the connection alone.
// Until then no byte of a body is read or decoded, for gRPC and REST alike. Three kinds of requests need no identity: Join,
// which has the join token in its body; webhooks, which are authenticated by their signature; and pages without a body,
// such as health.
//
// The interceptors check the permissions again. So a mistake here can reject too much or read too early, but it cannot give
// a caller more permissions.
type door struct {
	*Server
	routes    routes
	grpc      http.Handler
	rest      http.Handler
	ui        *ui.UI
	strangers *connlimit.Counter
}

// ServeHTTP serves a request or rejects it.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	r = withPeer(r)
	route := d.routes.of(r)
	v := admission.NewVisit(w, r, route.method)
	defer v.Leave()
	err := d.identify(r, v, route) //nolint:contextcheck // the request carries it
	switch {
	case route.open: // an open route has separate limits
	case v.Actor.Role == api.RoleNone || err != nil:
		quiet := d.admitStranger(v)
		defer d.strangers.Leave(v.From)
		defer boundStranger(w, r)()
		if err != nil {
			d.refuse(w, r, v, route, err, began, quiet)
			return
		}
	default:
		if err := d.enter(v, route); err != nil {
			d.refuse(w, r, v, route, err, began, false)
			return
		}
		defer d.visits.Leave(v)
	}
	r = r.WithContext(admission.WithVisit(r.Context(), v)) //nolint:contextcheck // the request carries it
	if route.page {
		d.ui.ServeHTTP(w, r)
		return
	}
	if !route.grpc {
		d.rest.ServeHTTP(w, r)
		return
	}
	r, release, err := d.grpcBody(w, r, v, route)
	if err != nil {
		d.refuse(w, r, v, route, err, began, false)
		return
	}
	defer release()
	d.grpc.ServeHTTP(w, r)
}

// identify authenticates and authorises the caller. A page without a method is open to every caller.
func (d *door) identify(r *http.Request, v *admission.Visit, route route) error {
	if route.open {
		return nil
	}
	if route.page {
		return d.identifySession(r, v)
	}
	switch {
	case d.fromServer(r):
		return d.identifyServer(r, v, route)
	case peers.Claims(r.Header):
		return api.Unauthenticated("only a server of this cluster calls on behalf of others, with its certificate")
	}
	ctx := requestContext(r)
	if bare := len(r.Header["Authorization"]) == 0 && (r.TLS == nil || len(r.TLS.PeerCertificates) == 0); bare {
		if route.method == "" {
			return nil
		}
		return authorise(identity.Actor{}, route.method)
	}
	if err := d.filledSoon(ctx); err != nil {
		return err
	}
	if _, secret, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok {
		sessions{d.Server}.Freshen(ctx, strings.TrimSpace(secret))
	}
	v.Again = func() (identity.Actor, error) { return d.network(ctx) }
	actor, err := d.network(ctx)
	if route.method == "" && err != nil {
		return nil
	}
	if err != nil {
		return err
	}
	v.Actor = actor
	if actor.Role != api.RoleNone {
		countKnown(v)
	}
	if route.method == "" {
		return nil
	}
	return authorise(actor, route.method)
}

// identifySession authenticates a caller of the page by the cookie. A caller without a valid session is a stranger, who sees
// the login.
func (d *door) identifySession(r *http.Request, v *admission.Visit) error {
	secret := d.ui.Cookie(r)
	if secret == "" {
		return nil
	}
	if err := d.filledSoon(r.Context()); err != nil {
		return err
	}
	sessions{d.Server}.Freshen(r.Context(), secret)
	v.Again = func() (identity.Actor, error) { return sessions{d.Server}.Actor(r.Context(), secret) } //nolint:contextcheck // the request carries it
	actor, err := v.Again()
	if err != nil {
		return nil //nolint:nilerr // the page asks to log in again
	}
	v.Actor = actor
	countKnown(v)
	return nil
}

// countKnown counts the connection, once, as one of an authenticated caller.
func countKnown(v *admission.Visit) {
	if !v.Conn.Known.Swap(true) && v.Conn.Counted != nil {
		v.Conn.Counted.Known()
	}
}

// filledSoon waits for the cache. At most maxFilling calls wait, because their callers are not authenticated yet.
func (s *Server) filledSoon(ctx context.Context) error {
	select {
	case <-s.db.Cache.Loaded:
		return nil
	default:
	}
	select {
	case s.filling <- struct{}{}:
		defer func() { <-s.filling }()
		return s.db.Cache.Filled(ctx)
	default:
		return api.Unavailable("the server is still reading its store: try again later")
	}
}

// enter counts the call of an authenticated caller.
func (d *door) enter(v *admission.Visit, route route) error {
	err := d.visits.Enter(v, d.cfg.MaxCallsPerCaller)
	if err != nil || !route.stream {
		return err
	}
	if err = v.StillValid(); err != nil { // the token may have been deleted before the call was counted
		d.visits.Leave(v)
	}
	return err
}

// admitStranger counts a request of a caller that has not authenticated. quiet means that the answer must have no body. If
// one address has too many such requests, the connection is closed.
func (d *door) admitStranger(v *admission.Visit) (quiet bool) {
	here, ok := d.strangers.Enter(v.From)
	if !ok {
		if v.Conn.Counted != nil && !v.Conn.Known.Load() {
			_ = v.Conn.Counted.Close()
		}
		panic(http.ErrAbortHandler) // ends the request without an answer
	}
	return here > maxStrangerAnswers
}

// boundStranger sets the deadline of a request. done flushes the answer while the request still counts, because over HTTP/2
// a client can delay it.
func boundStranger(w http.ResponseWriter, r *http.Request) (done func()) {
	conn, until := http.NewResponseController(w), time.Now().Add(admission.StrangerTimeout)
	_, _ = conn.SetReadDeadline(until), conn.SetWriteDeadline(until) // if this fails, the limits on request counts still apply
	if r.ProtoMajor >= 2 {
		return func() { _ = conn.Flush() }
	}
	if r.ContentLength != 0 { // net/http reads the rest of the body
		w.Header().Set("Connection", "close")
	}
	return func() { _ = conn.SetWriteDeadline(time.Time{}) } // the connection may serve other requests
}

// grpcBody prepares the body of an authorised call. If the call has one message, grpcBody reads it within a deadline and a
// memory limit: gRPC over net/http would read it without limits and keep a buffer of 16 KiB for each piece, however small.
// A streaming call reads its body as it goes: see frames.
func (d *door) grpcBody(w http.ResponseWriter, r *http.Request, v *admission.Visit, route route) (*http.Request, func(), error) {
	if route.sends {
		m := methods[route.method]
		return admission.HoldBack(r, m.message, m.pace, m.burst), func() {}, nil
	}
	message, release, err := d.bodies.ReadMessage(w, r, v)
	if err != nil {
		return r, nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(message))
	return r, release, nil
}

// refuse counts and logs a call that the door rejects, and answers with the error before the body was read. A quiet answer has no body.
func (d *door) refuse(w http.ResponseWriter, r *http.Request, v *admission.Visit, route route, err error, began time.Time, quiet bool) {
	if _, ok := methods[v.Method]; ok {
		d.metrics.observe(v.Method, err, time.Since(began))
		d.audit(admission.WithVisit(r.Context(), v), v.Actor, v.Method, nil, nil, err)
	}
	switch {
	case route.grpc:
		refuseGRPC(w, err)
	case quiet:
		p := api.ProblemOf(api.Wire(err))
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(int(p.GetStatus()))
	default:
		if r.ProtoMajor < 2 && r.ContentLength != 0 { // the rest of the body stays unread
			w.Header().Set("Connection", "close")
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
		}
		rest.WriteProblem(w, rest.Problem(api.Wire(err)))
	}
}

// refuseGRPC answers a call with only its status, in headers and trailers, which a client cannot block by not reading.
func refuseGRPC(w http.ResponseWriter, err error) {
	st, _ := status.FromError(api.Wire(err))
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Trailer", "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin")
	w.WriteHeader(http.StatusOK)
	h.Set("Grpc-Status", strconv.Itoa(int(st.Code())))
	h.Set("Grpc-Message", grpcMessage(st.Message()))
	if details, err := proto.Marshal(st.Proto()); err == nil && len(st.Proto().GetDetails()) > 0 {
		h.Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(details))
	}
}

// grpcMessage encodes a message for a header of the gRPC protocol: printable ASCII except the percent sign stays, every
// other byte becomes %XX.
func grpcMessage(text string) string {
	var out strings.Builder
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&out, "%%%02X", c)
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}

// withPeer adds the peer's address and certificate to a request's context, as gRPC does.
func withPeer(r *http.Request) *http.Request {
	p := &peer.Peer{Addr: remoteAddr(r.RemoteAddr)}
	if r.TLS != nil {
		p.AuthInfo = credentials.TLSInfo{
			State: *r.TLS, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		}
	}
	return r.WithContext(peer.NewContext(r.Context(), p))
}

// requestContext puts a request's credentials where gRPC puts them.
func requestContext(r *http.Request) context.Context {
	return metadata.NewIncomingContext(r.Context(), metadata.MD{"authorization": r.Header.Values("Authorization")})
}

// remoteAddr is a net.Addr for the address text of net/http.
type remoteAddr string

func (remoteAddr) Network() string  { return "tcp" }
func (a remoteAddr) String() string { return string(a) }
