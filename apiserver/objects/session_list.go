package objects

import (
	"cmp"
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ListSessions returns the sessions that the caller may end, without their secrets. Sessions that no longer authenticate
// anybody are left out.
func (s Sessions) ListSessions(ctx context.Context, req *carav1.ListRequest) (*carav1.ListSessionsResponse, error) {
	match, err := labelMatch[*carav1.Session](req.GetLabelSelector())
	if err != nil {
		return nil, err
	}
	caller := identity.ActorOf(ctx)
	items, meta := state.Page(s.DB.Cache, "", req.GetPageToken(), req.GetLimit(), func(session *carav1.Session) bool {
		return match(session) && mayEnd(caller, session) && s.Shown(caller, session) != nil
	})
	for i, session := range items {
		items[i] = s.Shown(caller, session)
	}
	return &carav1.ListSessionsResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindSession), Items: items, Metadata: meta}, nil
}

// Shown returns a session as the caller sees it; nil if it has ended, or is a link.
func (s *Service) Shown(caller identity.Actor, session *carav1.Session) *carav1.Session {
	actor, err := s.SessionActor(session)
	if session.GetLink() || api.Code(err) == codes.Unauthenticated || !session.GetExpireAt().AsTime().After(s.DB.Now()) {
		return nil
	}
	return &carav1.Session{
		Metadata: session.GetMetadata(), Token: session.GetToken(), Client: cmp.Or(session.GetClient(), api.SessionPage),
		Actor: sessionOwner(session), ExpireAt: session.GetExpireAt(), Role: string(actor.Role), NamePrefixes: actor.NamePrefixes,
		Current: session.GetMetadata().GetName() == caller.Session,
	}
}

// sessionOwner returns the person whose session it is. Older versions of Cara have stored only the token.
func sessionOwner(session *carav1.Session) string {
	return cmp.Or(session.GetActor(), api.PrefixUser+session.GetToken())
}

// mayEnd reports whether the caller may see and end a session.
func mayEnd(caller identity.Actor, session *carav1.Session) bool {
	return caller.Role == api.RoleAdmin || caller.Name == sessionOwner(session)
}

// DeleteSession ends a session. To others it does not say whether a session exists.
func (s Sessions) DeleteSession(ctx context.Context, req *carav1.DeleteRequest) (*emptypb.Empty, error) {
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		session, ok := state.Read[*carav1.Session](t, req.GetName())
		if !ok || !mayEnd(t.Actor, session) {
			return rules.NotFound(api.KindSession, req.GetName())
		}
		t.Remove(api.KindSession, req.GetName())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}
