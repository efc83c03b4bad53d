package apiserver

import (
	"context"
	"log/slog"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// sessions logs people in to the page and out. A session has the rights of its token, and each request looks up both, so a
// revocation takes effect with the next request. The door has not waited for the cache for people who are not logged in yet.
type sessions struct{ *Server }

// Login opens a session for a token.
func (s sessions) Login(ctx context.Context, token string) (secret string, session *carav1.Session, err error) {
	defer func() { s.told(ctx, "Login", session.GetActor(), err) }()
	if err := s.filledSoon(ctx); err != nil {
		return "", nil, err
	}
	actor, err := tokens(s).bearer(ctx, "Bearer "+strings.TrimSpace(token))
	if err != nil {
		return "", nil, err
	}
	if actor.Token == "" {
		return "", nil, api.BadState("this is the token of a login of caractrl, which the page does not take: log in with your organisation")
	}
	return s.sessions.OpenSession(ctx, actor.Token)
}

// Open opens a session with the code of a link.
func (s sessions) Open(ctx context.Context, code string) (secret string, session *carav1.Session, err error) {
	defer func() { s.told(ctx, "OpenLink", session.GetActor(), err) }()
	if err := s.filledSoon(ctx); err != nil {
		return "", nil, err
	}
	return s.sessions.OpenLink(ctx, code)
}

// Logout ends a session.
func (s sessions) Logout(ctx context.Context, actor identity.Actor) error {
	err := s.sessions.CloseSession(ctx, actor.Session)
	s.told(ctx, "Logout", actor.Name, err)
	return err
}

// Actor returns the caller that the secret of a cookie authenticates.
func (s sessions) Actor(ctx context.Context, secret string) (identity.Actor, error) {
	session, err := s.sessions.FindSession(ctx, secret)
	if api.Code(err) == codes.Unavailable {
		return identity.Actor{}, err
	}
	if err != nil || session.GetLink() || session.GetClient() == api.SessionCaractrl {
		return identity.Actor{}, api.Unauthenticated("this login has ended: log in again")
	}
	return s.actor(session)
}

// actor returns the caller that a stored session authenticates.
func (s sessions) actor(session *carav1.Session) (identity.Actor, error) {
	if session.GetOpenId() != nil {
		return s.person(session)
	}
	token, ok := state.Get[*carav1.Token](s.db.Cache, session.GetToken())
	if !ok || token.GetMetadata().GetUid() != session.GetTokenUid() {
		return identity.Actor{}, objects.ErrRevoked(session.GetToken())
	}
	actor, err := s.actorOf(token)
	if err != nil {
		return identity.Actor{}, err
	}
	actor.Session = session.GetMetadata().GetName()
	if end := session.GetExpireAt().AsTime(); actor.Expires.IsZero() || end.Before(actor.Expires) {
		actor.Expires = end
	}
	return actor, nil
}

// told writes the audit line of a login or a logout. Failures are sampled, because anyone can cause them.
func (s sessions) told(ctx context.Context, what, actor string, err error) {
	left, sampled := 0, true
	if err != nil {
		left, sampled = s.anonymous.Say(s.db.Now())
	}
	if sampled {
		attrs := auditAttrs(ctx, identity.Actor{Name: actor}, what, "", api.ProblemOf(err), api.Code(err))
		s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "audit", append(attrs, slog.Int("left_out", left))...)
	}
}
