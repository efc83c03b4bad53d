package apiserver

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/fullstorydev/grpchan/inprocgrpc"

	"github.com/caravanserai/cara/api"
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

// visit is one call from outside, from its headers to the end of its answer. The door makes it, and every service finds
// the caller there.
type visit struct {
	actor  identity.Actor
	method string // full name of the RPC; empty where the request is for a page
	from   netip.Prefix
	addr   string
	here   bool // the caller is on the server's host
	conn   *connState

	// again authenticates the caller once more, with the credentials of this call.
	again func() (identity.Actor, error)
	// over ends when the caller's credentials are no longer valid; its cause is what the caller is told.
	over context.Context //nolint:containedctx // the visit's own life, which the door and the services share
	end  context.CancelCauseFunc

	mu   sync.Mutex
	http *http.ResponseController // nil when the call has ended
}

type visitKey struct{}

// visitOf finds the visit of a call, which may have come through the gateway; nil for the loops of this process.
func visitOf(ctx context.Context) *visit {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		return v
	}
	if client := inprocgrpc.ClientContext(ctx); client != nil {
		v, _ := client.Value(visitKey{}).(*visit)
		return v
	}
	return nil
}

// visitor is who calls from outside: the door has found out already.
func visitor(ctx context.Context) (identity.Actor, error) {
	v := visitOf(ctx)
	if v == nil {
		return identity.Actor{}, api.Internal("this call did not come through the server's door")
	}
	return v.actor, nil
}

// clientAddr is the address of the caller, for people.
func clientAddr(ctx context.Context) string {
	if v := visitOf(ctx); v != nil {
		return v.addr
	}
	return "in-process"
}

// newVisit begins a visit.
func newVisit(w http.ResponseWriter, r *http.Request, method string) *visit {
	v := &visit{method: method, addr: r.RemoteAddr, here: sameHost(r), http: http.NewResponseController(w)}
	v.conn, _ = r.Context().Value(connKey{}).(*connState)
	if v.conn == nil {
		v.conn = &connState{} // a server of tests, without ConnContext
	}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		v.from = connlimit.Prefix(at.Addr())
	}
	v.over, v.end = context.WithCancelCause(context.WithoutCancel(r.Context()))
	return v
}

// reject ends the visit because the caller's credentials are no longer valid. What does not end by itself, such as a
// stream whose caller does not read, is cut off.
func (s *Server) reject(v *visit, why error) {
	v.end(why)
	s.guard.After(v.method, endGrace, v.cut)
}

func (v *visit) cut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.http == nil {
		return
	}
	_ = v.http.SetReadDeadline(time.Unix(1, 0))
	_ = v.http.SetWriteDeadline(time.Unix(1, 0))
}

func (v *visit) leave() {
	v.end(nil)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.http = nil // the connection serves the next request now
}

// visits has the open calls of known callers.
type visits struct {
	mu      sync.Mutex
	open    map[*visit]bool
	callers map[string]int // open calls by the actor's name
}

// enter counts a call of a known caller.
func (s *visits) enter(v *visit, limit int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open, s.callers = map[*visit]bool{}, map[string]int{}
	}
	if s.callers[v.actor.Name] >= limit {
		return api.TooMany("%s has %d calls open, which is the most for one caller: close some, or start cara-server with a higher --max-calls-per-caller", v.actor.Name, limit)
	}
	s.open[v] = true
	s.callers[v.actor.Name]++
	return nil
}

func (s *visits) leave(v *visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open[v] {
		return
	}
	delete(s.open, v)
	if s.callers[v.actor.Name]--; s.callers[v.actor.Name] == 0 {
		delete(s.callers, v.actor.Name)
	}
}

// which returns the open calls for which want is true.
func (s *visits) which(want func(*visit) bool) (out []*visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v := range s.open {
		if want(v) {
			out = append(out, v)
		}
	}
	return out
}

// endWithTokens ends the open calls whose token was deleted, was changed or has expired, until ctx ends.
func (s *Server) endWithTokens(ctx context.Context) error {
	select {
	case <-s.db.Cache.Loaded:
	case <-ctx.Done():
		return nil
	}
	expired := time.NewTicker(expiryCheck)
	defer expired.Stop()
	for at := s.db.Cache.Revision(); ; {
		txs, wake, ok := s.db.Cache.After(at)
		switch {
		case !ok: // too far behind: look at every call
			at = s.db.Cache.Revision()
			s.recheck(func(*visit) bool { return true })
			continue
		case len(txs) > 0:
			at = txs[len(txs)-1].Rev
			if changed := changedTokens(txs); len(changed) > 0 {
				s.recheck(func(v *visit) bool { return changed[v.actor.Token] })
			}
			continue
		}
		select {
		case <-wake:
		case <-expired.C:
			now := s.db.Now()
			s.recheck(func(v *visit) bool { return !v.actor.Expires.IsZero() && !v.actor.Expires.After(now) })
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
func (s *Server) recheck(which func(*visit) bool) {
	for _, v := range s.visits.which(which) {
		err := v.stillValid()
		switch {
		case err == nil:
		case v.method == carav1.NodeService_Connect_FullMethodName:
			s.guard.After(v.method, endGrace, func() { s.reject(v, err) })
		default:
			s.reject(v, err)
		}
	}
}

// stillValid says why the caller may no longer go on with what he began.
func (v *visit) stillValid() error {
	actor, err := v.again()
	if err != nil {
		return err
	}
	if actor.Name != v.actor.Name || actor.Role != v.actor.Role {
		return api.Unauthenticated("the token of %s was changed during the call: call again", v.actor.Name)
	}
	return nil
}
