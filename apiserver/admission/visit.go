// Package admission bounds what callers may cost the server: their open calls, the bytes of their bodies, the turns of those
// who are not known yet, and how far a stream is read ahead. On the line of a push it stands between the network and the
// services.
//
// What must hold:
//
//   - A Visit is one call from outside, from its headers to the end of its answer. It ends when the caller's credentials
//     are no longer valid.
//   - Room for a body is reserved before the body is read, and one caller or address cannot take it all.
//   - Whoever is not known yet has bounds of his own and cannot keep out those who are.
package admission

import (
	"context"
	"net"
	"net/http"
	"net/netip"
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
)

const (
	// expiryCheck is how often the server looks for open calls whose token has expired.
	expiryCheck = time.Second
	// endGrace is how long a stream whose token is gone may take to end by itself. Then its connection is cut off.
	endGrace = 2 * time.Second
)

// Visit is one call from outside, from its headers to the end of its answer. The door makes it, and every service finds
// the caller there.
type Visit struct {
	Actor  identity.Actor
	Method string // full name of the RPC; empty where the request is for a page
	From   netip.Prefix
	addr   string
	here   bool // the caller is on the server's host
	Conn   *connState

	// again authenticates the caller once more, with the credentials of this call.
	Again func() (identity.Actor, error)
	// over ends when the caller's credentials are no longer valid; its cause is what the caller is told.
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

// VisitOf finds the visit of a call, which may have come through the gateway; nil for the loops of this process.
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

// Visitor is who calls from outside: the door has found out already.
func Visitor(ctx context.Context) (identity.Actor, error) {
	v := VisitOf(ctx)
	if v == nil {
		return identity.Actor{}, api.Internal("this call did not come through the server's door")
	}
	return v.Actor, nil
}

// ClientAddr is the address of the caller, for people.
func ClientAddr(ctx context.Context) string {
	if v := VisitOf(ctx); v != nil {
		return v.addr
	}
	return "in-process"
}

// NewVisit begins a visit.
func NewVisit(w http.ResponseWriter, r *http.Request, method string) *Visit {
	v := &Visit{Method: method, addr: r.RemoteAddr, here: sameHost(r), http: http.NewResponseController(w)}
	v.Conn, _ = r.Context().Value(connKey{}).(*connState)
	if v.Conn == nil {
		v.Conn = &connState{} // a server of tests, without ConnContext
	}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		v.From = connlimit.Prefix(at.Addr())
	}
	v.Over, v.end = context.WithCancelCause(context.WithoutCancel(r.Context()))
	return v
}

// reject ends the visit because the caller's credentials are no longer valid. What does not end by itself, such as a
// stream whose caller does not read, is cut off.
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

// Leave ends the visit. It no longer touches the connection.
func (v *Visit) Leave() {
	v.end(nil)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.http = nil // the connection serves the next request now
}

// Visits has the open calls of known callers.
type Visits struct {
	DB    *state.DB
	Guard guard.Guard

	mu      sync.Mutex
	open    map[*Visit]bool
	callers map[string]int // open calls by the actor's name
}

// Enter counts a call of a known caller.
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

// Leave ends what Enter has counted; a second call does nothing.
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

// EndWithTokens ends the open calls whose token was deleted, was changed or has expired, until ctx ends.
func (s *Visits) EndWithTokens(ctx context.Context) error {
	select {
	case <-s.DB.Cache.Loaded:
	case <-ctx.Done():
		return nil
	}
	expired := time.NewTicker(expiryCheck)
	defer expired.Stop()
	for at := s.DB.Cache.Revision(); ; {
		txs, wake, ok := s.DB.Cache.After(at)
		switch {
		case !ok: // too far behind: look at every call
			at = s.DB.Cache.Revision()
			s.recheck(func(*Visit) bool { return true })
			continue
		case len(txs) > 0:
			at = txs[len(txs)-1].Rev
			if changed := changedTokens(txs); len(changed) > 0 {
				s.recheck(func(v *Visit) bool { return changed[v.Actor.Token] })
			}
			continue
		}
		select {
		case <-wake:
		case <-expired.C:
			now := s.DB.Now()
			s.recheck(func(v *Visit) bool { return !v.Actor.Expires.IsZero() && !v.Actor.Expires.After(now) })
		case <-ctx.Done():
			return nil
		}
	}
}

// changedTokens has the names of the tokens that some transactions wrote or removed.
func changedTokens(txs []state.Transaction) map[string]bool {
	changed := map[string]bool{}
	for _, tx := range txs {
		for i := range tx.Changes {
			if tx.Changes[i].Kind == api.KindToken {
				changed[tx.Changes[i].Name] = true
			}
		}
	}
	return changed
}

// recheck authenticates the callers of some open calls once more. An agent's own stream gets some time first: who took
// its certificate away, such as another agent that has joined under its name, tells it the reason over that stream.
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

// StillValid says why the caller may no longer go on with what he began.
func (v *Visit) StillValid() error {
	actor, err := v.Again()
	if err != nil {
		return err
	}
	if actor.Name != v.Actor.Name || actor.Role != v.Actor.Role {
		return api.Unauthenticated("the token of %s was changed during the call: call again", v.Actor.Name)
	}
	return nil
}

// connState is what the door knows of one connection.
type connState struct {
	Counted *connlimit.Conn // nil where the listener does not count
	Known   atomic.Bool
}

type connKey struct{}

// WithConn is net/http's ConnContext.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, &connState{Counted: connlimit.Of(c)})
}

// OnThisHost reports whether the caller runs on the server's host: in its process, or over a connection that begins and
// ends on one machine.
func OnThisHost(ctx context.Context) bool {
	v := VisitOf(ctx)
	return v == nil || v.here
}

// sameHost reports whether a request came from the machine that it arrived at.
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
