package objects

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
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
	actor := identity.ActorOf(ctx)
	if actor.Token == "" {
		return nil, api.BadState("only a token can make a link that logs in; %s has logged in with OpenID Connect: open /ui/ and log in there", actor.Name)
	}
	code, session, err := Sessions{s.Service}.openTokenSession(ctx, actor.Token, linkLife, true)
	if err != nil {
		return nil, err
	}
	return &carav1.CreateLoginResponse{Path: LoginPath + code, ExpireAt: session.GetExpireAt()}, nil
}

// OpenSession creates a session with the rights of a token. secret is for the browser's cookie.
func (s Sessions) OpenSession(ctx context.Context, token string) (secret string, session *carav1.Session, err error) {
	return s.openTokenSession(ctx, token, sessionLife, false)
}

func (s Sessions) openTokenSession(ctx context.Context, token string, life time.Duration, link bool) (secret string, session *carav1.Session, err error) {
	return s.begin(ctx, func(t *state.Tx, id, hidden string) (*carav1.Session, error) {
		owner, ok := state.Read[*carav1.Token](t, token)
		if !ok {
			return nil, ErrRevoked(token)
		}
		return putSession(t, owner, id, hidden, life, link), nil
	})
}

// begin stores the session that put makes for an id and a hidden part, and returns its secret, which consists of both.
func (s Sessions) begin(ctx context.Context, put func(t *state.Tx, id, hidden string) (*carav1.Session, error)) (secret string, session *carav1.Session, err error) {
	id, hidden := identity.NewTokenID(), identity.NewSecret()
	err = s.DB.Transact(ctx, func(t *state.Tx) (err error) {
		session, err = put(t, id, hidden)
		return err
	})
	return identity.FormatToken(id, hidden), session, err
}

// useUp removes a link. Of two calls with one link, one fails.
func useUp(t *state.Tx, link *carav1.Session) error {
	if _, there := state.Read[*carav1.Session](t, link.GetMetadata().GetName()); !there {
		return errSession()
	}
	t.Remove(api.KindSession, link.GetMetadata().GetName())
	return nil
}

// OpenLink ends a link and creates a session with the rights of its token. Of two calls with one code, one fails.
func (s Sessions) OpenLink(ctx context.Context, code string) (secret string, session *carav1.Session, err error) {
	link, err := s.FindSession(ctx, code)
	if err != nil {
		return "", nil, err
	}
	if !link.GetLink() || link.GetOpenId() != nil {
		return "", nil, errSession()
	}
	return s.begin(ctx, func(t *state.Tx, id, hidden string) (*carav1.Session, error) {
		if err := useUp(t, link); err != nil {
			return nil, err
		}
		owner, ok := state.Read[*carav1.Token](t, link.GetToken())
		if !ok || owner.GetMetadata().GetUid() != link.GetTokenUid() { // another token may have the name now
			return nil, ErrRevoked(link.GetToken())
		}
		return putSession(t, owner, id, hidden, sessionLife, false), nil
	})
}

// CloseSession ends a session. It succeeds if the session has ended before.
func (s Sessions) CloseSession(ctx context.Context, id string) error {
	return s.DB.Transact(ctx, func(t *state.Tx) error {
		if _, there := state.Read[*carav1.Session](t, id); there {
			t.Remove(api.KindSession, id)
		}
		return nil
	})
}

// FindSession returns the session or the link with a secret. It does not check the token.
func (s Sessions) FindSession(ctx context.Context, secret string) (*carav1.Session, error) {
	return s.openSession(secret, func(id string) (*carav1.Session, bool, error) { return state.Find[*carav1.Session](ctx, s.DB, id) })
}

// KnownSession is FindSession for a secret that may be of something else. It does not look into the store.
func (s Sessions) KnownSession(secret string) (*carav1.Session, error) {
	return s.openSession(secret, func(id string) (*carav1.Session, bool, error) {
		session, ok := state.Get[*carav1.Session](s.DB.Cache, id)
		return session, ok, nil
	})
}

func (s Sessions) openSession(secret string, find func(id string) (*carav1.Session, bool, error)) (*carav1.Session, error) {
	id, hidden, err := identity.ParseToken(secret)
	if err != nil {
		return nil, errSession()
	}
	session, ok, err := find(id)
	if err != nil {
		return nil, err
	}
	if !ok || !identity.SecretMatches(session.GetSecretHash(), hidden) || !session.GetExpireAt().AsTime().After(s.DB.Now()) {
		return nil, errSession()
	}
	return session, nil
}

func errSession() error {
	return api.Unauthenticated("this login has ended or was used before: log in again")
}

// ErrRevoked is the error for a session or a link whose token was deleted or replaced.
func ErrRevoked(token string) error {
	return api.Unauthenticated("token %q was revoked: log in with another one", token)
}

// putSession stores a session of a token, and removes what has ended and what is too much.
func putSession(t *state.Tx, owner *carav1.Token, id, hidden string, life time.Duration, link bool) *carav1.Session {
	token := owner.GetMetadata().GetName()
	removeSessions(t, api.PrefixUser+token)
	session := &carav1.Session{
		Metadata: &carav1.ObjectMeta{Name: id, CreationTimestamp: timestamppb.New(t.Now)},
		Token:    token, TokenUid: owner.GetMetadata().GetUid(), SecretHash: identity.HashSecret(hidden),
		ExpireAt: timestamppb.New(t.Now.Add(life)), Link: link, Client: api.SessionPage, Actor: api.PrefixUser + token,
	}
	t.Put(session)
	return session
}

// removeSessions removes the sessions that have ended, and the oldest ones of a person who would have too many with one more.
func removeSessions(t *state.Tx, person string) {
	var same []*carav1.Session
	for _, other := range state.List[*carav1.Session](t.Seen, "") {
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
func (s Sessions) Shown(caller identity.Actor, session *carav1.Session) *carav1.Session {
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
	return &emptypb.Empty{}, err
}
