package objects

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	sessionLife = 7 * 24 * time.Hour
	linkLife    = 10 * time.Minute
	// maxSessions limits the sessions and links of one person. The oldest ends when there are more.
	maxSessions = 32
	// LoginPath is where a link leads. The code follows it.
	LoginPath = "/ui/login?code="
)

// CreateLogin creates a link that logs in to the page once. Only this answer contains its code.
func (s Tokens) CreateLogin(ctx context.Context, _ *emptypb.Empty) (*carav1.CreateLoginResponse, error) {
	code, session, err := s.putSession(ctx, identity.ActorOf(ctx).Token, linkLife, true)
	if err != nil {
		return nil, err
	}
	return &carav1.CreateLoginResponse{Path: LoginPath + code, ExpireAt: session.GetExpireAt()}, nil
}

// OpenSession creates a session with the rights of a token. secret is for the browser's cookie.
func (s *Service) OpenSession(ctx context.Context, token string) (secret string, session *carav1.Session, err error) {
	return s.putSession(ctx, token, sessionLife, false)
}

// OpenLink ends a link and creates a session with the rights of its token. Of two calls with one code, one fails.
func (s *Service) OpenLink(ctx context.Context, code string) (secret string, session *carav1.Session, err error) {
	link, err := s.FindSession(code)
	if err != nil || !link.GetLink() || link.GetOpenId() != nil {
		return "", nil, errSession()
	}
	err = s.DB.Transact(ctx, func(t *state.Tx) error {
		if _, there := state.Read[*carav1.Session](t, link.GetMetadata().GetName()); !there {
			return errSession()
		}
		t.Remove(api.KindSession, link.GetMetadata().GetName())
		return nil
	})
	if err != nil {
		return "", nil, err
	}
	return s.OpenSession(ctx, link.GetToken())
}

// CloseSession ends a session. It succeeds if the session has ended before.
func (s *Service) CloseSession(ctx context.Context, id string) error {
	return s.DB.Transact(ctx, func(t *state.Tx) error {
		if _, there := state.Read[*carav1.Session](t, id); there {
			t.Remove(api.KindSession, id)
		}
		return nil
	})
}

// FindSession returns the session or the link with a secret. It does not check the token.
func (s *Service) FindSession(secret string) (*carav1.Session, error) {
	id, hidden, err := identity.ParseToken(secret)
	if err != nil {
		return nil, errSession()
	}
	session, ok := state.Get[*carav1.Session](s.DB.Cache, id)
	if !ok || !identity.SecretMatches(session.GetSecretHash(), hidden) || !session.GetExpireAt().AsTime().After(s.DB.Now()) {
		return nil, errSession()
	}
	return session, nil
}

func errSession() error {
	return api.Unauthenticated("this login has ended or was used before: log in again")
}

// putSession stores a session, and removes what has ended and what is too much.
func (s *Service) putSession(ctx context.Context, token string, life time.Duration, link bool) (secret string, session *carav1.Session, err error) {
	id, hidden := identity.NewTokenID(), identity.NewSecret()
	err = s.DB.Transact(ctx, func(t *state.Tx) error {
		owner, ok := state.Read[*carav1.Token](t, token)
		if !ok {
			return api.BadState("only a token can make a link that logs in; %s has logged in with OpenID Connect: open %s and log in there", t.Actor.Name, "/ui/")
		}
		removeSessions(t, api.PrefixUser+token)
		session = &carav1.Session{
			Metadata: &carav1.ObjectMeta{Name: id, CreationTimestamp: timestamppb.New(t.Now)},
			Token:    token, TokenUid: owner.GetMetadata().GetUid(), SecretHash: identity.HashSecret(hidden),
			ExpireAt: timestamppb.New(t.Now.Add(life)), Link: link, Client: api.SessionPage, Actor: api.PrefixUser + token,
		}
		t.Put(session)
		return nil
	})
	return identity.FormatToken(id, hidden), session, err
}

// removeSessions removes the sessions that have ended, and the oldest ones of a person who would have too many with one more.
func removeSessions(t *state.Tx, person string) {
	all, _ := state.List[*carav1.Session](t.Seen, "", "")
	var same []*carav1.Session
	for _, other := range all {
		owner, ok := state.Get[*carav1.Token](t.Seen, other.GetToken())
		lost := other.GetOpenId() == nil && (!ok || owner.GetMetadata().GetUid() != other.GetTokenUid())
		switch {
		case lost || !other.GetExpireAt().AsTime().After(t.Now):
			t.Remove(api.KindSession, other.GetMetadata().GetName())
		case sessionOwner(other) == person:
			same = append(same, other)
		}
	}
	slices.SortFunc(same, func(a, b *carav1.Session) int {
		return a.GetMetadata().GetCreationTimestamp().AsTime().Compare(b.GetMetadata().GetCreationTimestamp().AsTime())
	})
	for ; len(same) >= maxSessions; same = same[1:] {
		t.Remove(api.KindSession, same[0].GetMetadata().GetName())
	}
}
