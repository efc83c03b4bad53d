package apiserver

import (
	"context"
	"net/http"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/guard"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/peers"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// servePeers does the work of a server that has others beside it.
func (s *Server) servePeers(ctx context.Context, work guard.Group) {
	if s.peers == nil {
		return
	}
	work.Go(func() error { return s.peers.Run(ctx) })
	work.Go(func() error { return s.agents.Holders().FollowServers(ctx) })
	work.Go(func() error { return s.agents.Holders().WatchSilence(ctx) })
	work.Go(func() error { return s.agents.Holders().FollowRemovals(ctx) })
}

// fromServer reports whether a request comes from a server of this cluster.
func (s *Server) fromServer(r *http.Request) bool {
	return s.peers != nil && r.TLS != nil && identity.PeerServer(r.TLS)
}

// identifyServer authenticates another server of the cluster, or the caller on whose behalf it calls.
func (d *door) identifyServer(r *http.Request, v *admission.Visit, route route) error {
	if !route.grpc {
		return api.Forbidden("a server calls another one with gRPC only")
	}
	call, err := peers.CallOf(r.Header)
	if err != nil {
		return err
	}
	if v.Conn.Counted != nil {
		v.Conn.Counted.Peer()
	}
	if err := d.filledSoon(r.Context()); err != nil {
		return err
	}
	v.Again = func() (identity.Actor, error) {
		return identity.Actor{Name: api.PrefixSystem + api.RoleServer, Role: api.RoleServer}, nil
	}
	if call != nil {
		if !methods[route.method].remote {
			return api.Forbidden("a server does not call %s on behalf of others", shortMethod(route.method))
		}
		v.ForOther(call)
		v.Again = func() (identity.Actor, error) { return d.actorOfCall(call) }
		if err := d.db.Reach(r.Context(), call.GetRevision()); err != nil {
			return err
		}
		if d.db.Cache.Revision() < call.GetRevision() {
			return api.Unavailable("the server with the agent is behind the other servers: try again in some seconds")
		}
	}
	if v.Actor, err = v.Again(); err != nil {
		return err
	}
	countKnown(v)
	return authorise(v.Actor, route.method)
}

// actorOfCall returns the caller on whose behalf another server calls, with the rights that this server finds.
func (s *Server) actorOfCall(call *carav1.PeerCall) (actor identity.Actor, err error) {
	switch {
	case call.GetToken() != "":
		token, ok := state.Get[*carav1.Token](s.db.Cache, call.GetToken())
		if !ok {
			return identity.Actor{}, api.Unauthenticated("token %q was revoked", call.GetToken())
		}
		actor, err = s.actorOf(token)
	case call.GetSession() != "":
		session, ok := state.Get[*carav1.Session](s.db.Cache, call.GetSession())
		if !ok {
			return identity.Actor{}, api.Unauthenticated("this login has ended: log in again")
		}
		actor, err = sessions{s}.actor(session)
	default:
		return identity.Actor{}, api.Unauthenticated("a server calls on behalf of nobody")
	}
	if err == nil && actor.Name != call.GetActor() {
		return identity.Actor{}, api.Unauthenticated("a server calls on behalf of %s, with the credentials of %s", call.GetActor(), actor.Name)
	}
	return actor, err
}
