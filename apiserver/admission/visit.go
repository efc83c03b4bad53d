// Package admission limits what callers cost the server: their open calls, the bytes of their bodies, the turns of callers
// that have not authenticated, and how far a stream is read ahead. When a push is processed, it stands between the network
// and the services.
//
// Invariants:
//
//   - A Visit is one call from outside, from its headers to the end of its answer. It ends when the caller's credentials
//     are no longer valid.
//   - Memory for a body is reserved before the body is read, and one caller or address cannot take all of it.
//   - Unauthenticated callers have separate limits and cannot block authenticated ones.
package admission

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fullstorydev/grpchan/inprocgrpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/connlimit"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// expiryCheck is how often the server looks for open calls whose token has expired.
	expiryCheck = time.Second
	// endGrace is how long a stream has to end after its token is deleted or expires. Then its connection is cut off.
	endGrace = 2 * time.Second
	// maxClient limits what another server says about the caller's address.
	maxClient = 64
)

// Visit is one call from outside, from its headers to the end of its answer. The door creates it, and services read the
// caller from it.
type Visit struct {
	Actor  identity.Actor
	Method string // full name of the RPC; empty if the request is for a page
	From   netip.Prefix
	addr   string
	here   bool // the caller is on the server's host
	Conn   *connState

	// Behalf is set if another server of the cluster calls on behalf of the actor.
	Behalf *carav1.PeerCall

	// Again authenticates the caller again, with the credentials of this call.
	Again func() (identity.Actor, error)
	// Over ends when the caller's credentials are no longer valid. Its cause is the error that the caller gets.
	Over context.Context //nolint:containedctx // the visit's own life, which the door and the services share
	end  context.CancelCauseFunc

	mu   sync.Mutex
	http *http.ResponseController // nil when the call has ended
}

type visitKey struct{}

// WithVisit returns a context that carries v.
func WithVisit(ctx context.Context, v *Visit) context.Context {
	return context.WithValue(ctx, visitKey{}, v)
}

// VisitOf returns the visit of a call, which may have come through the gateway. It returns nil for the loops of this
// process.
func VisitOf(ctx context.Context) *Visit {
	if v, ok := ctx.Value(visitKey{}).(*Visit); ok {
		return v
	}
	if client := inprocgrpc.ClientContext(ctx); client != nil {
		v, _ := client.Value(visitKey{}).(*Visit)
		return v
	}
	return nil
}

// Visitor returns the caller of a call from outside, as the door authenticated it.
func Visitor(ctx context.Context) (identity.Actor, error) {
	v := VisitOf(ctx)
	if v == nil {
		return identity.Actor{}, api.Internal("this call did not come through the server's door")
	}
	return v.Actor, nil
}

// ClientAddr returns the address of the caller for messages and logs.
func ClientAddr(ctx context.Context) string {
	if v := VisitOf(ctx); v != nil {
		return v.addr
	}
	return "in-process"
}

// Behalf returns what another server of the cluster says about the caller on whose behalf it calls; nil for callers of this server.
func Behalf(ctx context.Context) *carav1.PeerCall {
	if v := VisitOf(ctx); v != nil {
		return v.Behalf
	}
	return nil
}

// ForOther notes that another server calls on behalf of somebody.
func (v *Visit) ForOther(call *carav1.PeerCall) {
	v.Behalf, v.here = call, false
	v.addr = text.Printable(call.GetClient(), maxClient) + " by server " + text.Printable(call.GetServer(), maxClient)
}

// NewVisit begins a visit.
func NewVisit(w http.ResponseWriter, r *http.Request, method string) *Visit {
	v := &Visit{Method: method, addr: r.RemoteAddr, here: sameHost(r), http: http.NewResponseController(w)}
	v.Conn, _ = r.Context().Value(connKey{}).(*connState)
	if v.Conn == nil {
		v.Conn = &connState{} // a test server without ConnContext
	}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		v.From = connlimit.Prefix(at.Addr())
	}
	v.Over, v.end = context.WithCancelCause(context.WithoutCancel(r.Context()))
	return v
}

// reject ends the visit because the caller's credentials are no longer valid. A call that is still open after endGrace,
// such as a stream whose caller does not read, is cut off.
func (s *Visits) reject(v *Visit, why error) {
	v.end(why)
	s.Guard.After(v.Method, endGrace, v.cut)
}

func (v *Visit) cut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.http == nil {
		return
	}
	_ = v.http.SetReadDeadline(time.Unix(1, 0))
	_ = v.http.SetWriteDeadline(time.Unix(1, 0))
}

// Leave ends the visit. The visit does not use the connection after that.
func (v *Visit) Leave() {
	v.end(nil)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.http = nil // the connection may serve the next request now
}

// Visits holds the open calls of authenticated callers.
type Visits struct {
	DB    *state.DB
	Guard guard.Guard

	mu      sync.Mutex
	open    map[*Visit]bool
	callers map[string]int // open calls by the actor's name
}

// Enter counts a call of an authenticated caller.
func (s *Visits) Enter(v *Visit, limit int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open, s.callers = map[*Visit]bool{}, map[string]int{}
	}
	if s.callers[v.Actor.Name] >= limit {
		return api.TooMany("%s has %d calls open, which is the most for one caller: close some, or start cara-server with a higher --max-calls-per-caller", v.Actor.Name, limit)
	}
	s.open[v] = true
	s.callers[v.Actor.Name]++
	return nil
}

// Leave ends a call that Enter counted. A second call does nothing.
func (s *Visits) Leave(v *Visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open[v] {
		return
	}
	delete(s.open, v)
	if s.callers[v.Actor.Name]--; s.callers[v.Actor.Name] == 0 {
		delete(s.callers, v.Actor.Name)
	}
}

// which returns the open calls for which want is true.
func (s *Visits) which(want func(*Visit) bool) (out []*Visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v := range s.open {
		if want(v) {
			out = append(out, v)
		}
	}
	return out
}

// Sessions returns the ids of the sessions with open calls.
func (s *Visits) Sessions() (ids []string) {
	for _, v := range s.which(func(v *Visit) bool { return v.Actor.Session != "" }) {
		ids = append(ids, v.Actor.Session)
	}
	return slices.Compact(slices.Sorted(slices.Values(ids)))
}

// EndWithTokens ends the open calls whose token is deleted, changed or expired. It returns when ctx ends.
func (s *Visits) EndWithTokens(ctx context.Context) error {
	if s.DB.Cache.Filled(ctx) != nil {
		return nil // the server ends
	}
	expired := time.NewTicker(expiryCheck)
	defer expired.Stop()
	s.DB.Cache.Track(ctx, expired.C, func() {
		s.recheck(func(*Visit) bool { return true })
	}, func(txs []state.Transaction) {
		if changed := changedCredentials(txs); len(changed) > 0 {
			s.recheck(func(v *Visit) bool {
				return changed[credential{api.KindToken, v.Actor.Token}] || changed[credential{api.KindSession, v.Actor.Session}]
			})
		}
	}, func() {
		now := s.DB.Now()
		s.recheck(func(v *Visit) bool { return !v.Actor.Expires.IsZero() && !v.Actor.Expires.After(now) })
	})
	return nil
}

// credential is a token or a session.
type credential struct{ kind, name string }

// changedCredentials returns the tokens and sessions that the transactions wrote or removed.
func changedCredentials(txs []state.Transaction) map[credential]bool {
	changed := map[credential]bool{}
	for _, tx := range txs {
		for i := range tx.Changes {
			if kind := tx.Changes[i].Kind; kind == api.KindToken || kind == api.KindSession {
				changed[credential{kind, tx.Changes[i].Name}] = true
			}
		}
	}
	return changed
}

// recheck authenticates the callers of some open calls again. An agent's Connect stream first gets some time: if another
// agent has joined under the same name, the server sends the reason over that stream.
func (s *Visits) recheck(which func(*Visit) bool) {
	for _, v := range s.which(which) {
		err := v.StillValid()
		switch {
		case err == nil:
		case v.Method == carav1.NodeService_Connect_FullMethodName:
			s.Guard.After(v.Method, endGrace, func() { s.reject(v, err) })
		default:
			s.reject(v, err)
		}
	}
}

// StillValid returns an error if the caller's credentials are no longer valid for this call.
func (v *Visit) StillValid() error {
	actor, err := v.Again()
	if err != nil {
		return err
	}
	if actor.Name != v.Actor.Name || actor.Role != v.Actor.Role || !slices.Equal(actor.NamePrefixes, v.Actor.NamePrefixes) ||
		!slices.Equal(actor.Hosts, v.Actor.Hosts) {
		return api.Unauthenticated("the rights of %s were changed during the call: call again", v.Actor.Name)
	}
	return nil
}

// connState is what the door knows about one connection.
type connState struct {
	Counted *connlimit.Conn // nil if the listener does not count connections
	Known   atomic.Bool
}

type connKey struct{}

// WithConn is for the ConnContext field of http.Server.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, &connState{Counted: connlimit.Of(c)})
}

// OnThisHost reports whether the caller runs on the server's host: in its process, or over a connection between two
// addresses of this machine.
func OnThisHost(ctx context.Context) bool {
	v := VisitOf(ctx)
	return v == nil || v.here
}

// sameHost reports whether a request came from the machine that received it.
func sameHost(r *http.Request) bool {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	from := remote.Addr().WithZone("").Unmap()
	if from.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	at, err := netip.ParseAddrPort(local.String())
	return err == nil && at.Addr().WithZone("").Unmap() == from
}
