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
	"github.com/caravanserai/cara/apiserver/rest"
)

const (

	// maxStrangerAnswers is how many such requests of one address get an answer with a body at the same time. Those
	// beyond get the status alone, which no client can hold up by not reading.
	maxStrangerAnswers = 16
	// maxFilling is how many calls wait for the cache while the server starts.
	maxFilling = 1024
)

// door is in front of everything that is served. It finds out from the headers and the connection alone who calls and
// whether he may: before that, no byte of a body is read or decoded, over gRPC and REST alike. Three kinds of requests
// need no identity: Join, which has the join token in its body, webhooks, whose signature is their identity, and pages
// without a body such as health.
//
// The interceptors ask the table of rights again, so a mistake here refuses too much or reads too early, but lets nobody
// do what he may not.
type door struct {
	*Server
	routes    routes
	grpc      http.Handler
	rest      http.Handler
	strangers *admission.Strangers
}

// ServeHTTP answers a request, or says why not.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	r = withPeer(r)
	route := d.routes.of(r)
	v := admission.NewVisit(w, r, route.method)
	defer v.Leave()
	err := d.identify(r, v, route) //nolint:contextcheck // the request carries it
	switch {
	case route.open: // it has bounds of its own
	case v.Actor.Role == api.RoleNone || err != nil:
		quiet := d.admitStranger(v)
		defer d.strangers.Leave(v.From)
		defer boundStranger(w, r)()
		if err != nil {
			d.refused(r, v, err, began)
			refuse(w, r, route, err, quiet)
			return
		}
	default:
		if err := d.enter(v, route); err != nil {
			d.refused(r, v, err, began)
			refuse(w, r, route, err, false)
			return
		}
		defer d.visits.Leave(v)
	}
	r = r.WithContext(admission.WithVisit(r.Context(), v)) //nolint:contextcheck // the request carries it
	if !route.grpc {
		d.rest.ServeHTTP(w, r)
		return
	}
	r, release, err := d.grpcBody(w, r, v, route)
	if err != nil {
		d.refused(r, v, err, began)
		refuse(w, r, route, err, false)
		return
	}
	defer release()
	d.grpc.ServeHTTP(w, r)
}

// identify finds out who calls, and whether he may. For a page without a method everybody is welcome, known or not.
func (d *door) identify(r *http.Request, v *admission.Visit, route route) error {
	if route.open {
		return nil
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
	v.Again = func() (identity.Actor, error) { return d.network(ctx) }
	actor, err := d.network(ctx)
	if route.method == "" && err != nil {
		return nil
	}
	if err != nil {
		return err
	}
	v.Actor = actor
	if v.Actor.Role != api.RoleNone && !v.Conn.Known.Swap(true) && v.Conn.Counted != nil {
		v.Conn.Counted.Known()
	}
	if route.method == "" {
		return nil
	}
	return authorise(actor, route.method)
}

// filledSoon waits for the cache. So many calls may wait, no more: nobody knows yet whose they are.
func (d *door) filledSoon(ctx context.Context) error {
	select {
	case <-d.db.Cache.Loaded:
		return nil
	default:
	}
	select {
	case d.filling <- struct{}{}:
		defer func() { <-d.filling }()
		return d.db.Cache.Filled(ctx)
	default:
		return api.Unavailable("the server is still reading its store: try again later")
	}
}

// enter counts the call of a known caller.
func (d *door) enter(v *admission.Visit, route route) error {
	if err := d.visits.Enter(v, d.cfg.MaxCallsPerCaller); err != nil {
		return err
	}
	if !route.stream {
		return nil
	}
	if err := v.StillValid(); err != nil { // the token may have gone before the call was counted
		d.visits.Leave(v)
		return err
	}
	return nil
}

// admitStranger counts a request of a caller that has not authenticated. quiet is true where the answer is to have no
// body. With too many of them from one address, the connection is closed.
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

// boundStranger bounds the time of a request. done sends the answer off while the request still counts: over HTTP/2, a
// client can hold it up.
func boundStranger(w http.ResponseWriter, r *http.Request) (done func()) {
	conn, until := http.NewResponseController(w), time.Now().Add(admission.StrangerTimeout)
	_, _ = conn.SetReadDeadline(until), conn.SetWriteDeadline(until) // where they fail, the bounds on the number are left
	if r.ProtoMajor >= 2 {
		return func() { _ = conn.Flush() }
	}
	if r.ContentLength != 0 { // net/http reads what nobody has read
		w.Header().Set("Connection", "close")
	}
	return func() { _ = conn.SetWriteDeadline(time.Time{}) } // the connection may serve other requests
}

// grpcBody prepares the body of a call that may be made. The body of a call with one message is read here, in bounded
// time and within the budget: gRPC over net/http would read it without bounds, and keep a buffer of 16 KiB for each
// piece of it, however small. A call that streams reads as it goes: see frames.
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

// refused counts and records a call that went no further than the door.
func (d *door) refused(r *http.Request, v *admission.Visit, err error, began time.Time) {
	if _, ok := methods[v.Method]; !ok {
		return
	}
	d.metrics.observe(v.Method, err, time.Since(began))
	d.audit(admission.WithVisit(r.Context(), v), v.Actor, v.Method, nil, err)
}

// refuse answers with an error before the body was read.
func refuse(w http.ResponseWriter, r *http.Request, route route, err error, quiet bool) {
	switch {
	case route.grpc:
		refuseGRPC(w, err)
	case quiet:
		p := api.ProblemOf(api.Wire(err))
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(int(p.GetStatus()))
	default:
		if r.ProtoMajor < 2 && r.ContentLength != 0 { // nobody reads the rest of the body
			w.Header().Set("Connection", "close")
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
		}
		rest.WriteProblem(w, rest.Problem(api.Wire(err)))
	}
}

// refuseGRPC answers a call with its status alone: headers and trailers, which no client can hold up by not reading.
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

// grpcMessage encodes a message as the gRPC protocol wants it in a header: printable ASCII without the percent sign goes
// as it is, every other byte as %XX.
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

// withPeer makes a request's context look as gRPC's own does: who is at the other end, and with which certificate.
func withPeer(r *http.Request) *http.Request {
	p := &peer.Peer{Addr: remoteAddr(r.RemoteAddr)}
	if r.TLS != nil {
		p.AuthInfo = credentials.TLSInfo{
			State: *r.TLS, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		}
	}
	return r.WithContext(peer.NewContext(r.Context(), p))
}

// requestContext has a request's credentials where gRPC has them.
func requestContext(r *http.Request) context.Context {
	return metadata.NewIncomingContext(r.Context(), metadata.MD{"authorization": r.Header.Values("Authorization")})
}

// remoteAddr is the address that net/http has as text.
type remoteAddr string

func (remoteAddr) Network() string  { return "tcp" }
func (a remoteAddr) String() string { return string(a) }
