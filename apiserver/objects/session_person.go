package objects

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// openLife is how long a browser may take to bring caractrl its code.
	openLife = 2 * time.Minute
	// renewLease is how long a server may take to renew a session.
	renewLease = 20 * time.Second
)

// sealOf returns the name with which the refresh token of a session is sealed.
func sealOf(id string) string { return "sessions/" + id }

// OpenPersonSession creates a session of a person who has logged in with OpenID Connect. With a challenge it is a link that
// only the caractrl can open that knows what the challenge is the hash of. session has the actor, the client and the terms of the login;
// refresh is the provider's refresh token.
func (s Sessions) OpenPersonSession(ctx context.Context, session *carav1.Session, refresh string) (secret string, stored *carav1.Session, err error) {
	return s.begin(ctx, func(t *state.Tx, id, hidden string) (*carav1.Session, error) {
		return s.putPerson(t, session, id, hidden, refresh), nil
	})
}

func (s Sessions) putPerson(t *state.Tx, in *carav1.Session, id, hidden, refresh string) *carav1.Session {
	out := proto.CloneOf(in)
	removeSessions(t, out.GetActor())
	out.Metadata = &carav1.ObjectMeta{Name: id, CreationTimestamp: timestamppb.New(t.Now)}
	out.SecretHash = identity.HashSecret(hidden)
	out.Link = out.GetOpenId().GetChallenge() != ""
	life := sessionLife
	if out.Link {
		life = openLife
	}
	out.ExpireAt = timestamppb.New(t.Now.Add(life))
	out.OpenId.RenewedAt, out.OpenId.RenewingUntil, out.OpenId.Refresh = timestamppb.New(t.Now), nil, nil
	switch fresh := out.GetOpenId().GetFreshUntil(); {
	case refresh != "":
		out.OpenId.Refresh = s.DB.Vault.Seal(sealOf(id), []byte(refresh))
	case fresh.AsTime().Before(out.GetExpireAt().AsTime()): // the provider cannot be asked again
		out.ExpireAt = fresh
	}
	t.Put(out)
	return out
}

// OpenTerminal ends the link of a caractrl and creates its session. Of two calls with one code, one fails.
func (s Sessions) OpenTerminal(ctx context.Context, code, verifier string) (secret string, session *carav1.Session, err error) {
	link, err := s.FindSession(ctx, code)
	if err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256([]byte(verifier))
	if !link.GetLink() || link.GetOpenId() == nil ||
		subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(link.GetOpenId().GetChallenge())) != 1 {
		return "", nil, errSession()
	}
	refresh, err := s.Refresh(link)
	if err != nil {
		return "", nil, err
	}
	return s.begin(ctx, func(t *state.Tx, id, hidden string) (*carav1.Session, error) {
		if err := useUp(t, link); err != nil {
			return nil, err
		}
		in := proto.CloneOf(link)
		in.OpenId.Challenge = ""
		return s.putPerson(t, in, id, hidden, refresh), nil
	})
}

// Refresh returns the refresh token of a session; "" if it has none.
func (s Sessions) Refresh(session *carav1.Session) (string, error) {
	sealed := session.GetOpenId().GetRefresh()
	if len(sealed) == 0 {
		return "", nil
	}
	refresh, err := s.DB.Vault.Open(sealOf(session.GetMetadata().GetName()), sealed)
	if err != nil {
		return "", api.Unauthenticated("this login cannot be renewed, because the server's key has changed: log in again")
	}
	return string(refresh), nil
}

// LeaseSession marks a session as being renewed and returns it; nil if it need not be renewed, has gone, or another server renews
// it.
func (s Sessions) LeaseSession(ctx context.Context, id string, due func(*carav1.Session) bool) (leased *carav1.Session, err error) {
	err = s.DB.Transact(ctx, func(t *state.Tx) error {
		leased = nil
		session, ok := state.Read[*carav1.Session](t, id)
		if !ok || !due(session) || session.GetOpenId().GetRenewingUntil().AsTime().After(t.Now) {
			return nil
		}
		leased = proto.CloneOf(session)
		leased.OpenId.RenewingUntil = timestamppb.New(t.Now.Add(renewLease))
		t.Put(leased)
		return nil
	})
	return leased, err
}

// RenewSession stores what the provider has said about the person. change is nil if it has said nothing.
func (s Sessions) RenewSession(ctx context.Context, id, refresh string, change func(*carav1.Session)) error {
	return s.DB.Transact(ctx, func(t *state.Tx) error {
		session, ok := state.Read[*carav1.Session](t, id)
		if !ok {
			return nil // it has ended in the meantime
		}
		session = proto.CloneOf(session)
		session.OpenId.RenewingUntil = nil
		if change != nil {
			change(session)
			session.OpenId.RenewedAt = timestamppb.New(t.Now)
			session.OpenId.Refresh = s.DB.Vault.Seal(sealOf(id), []byte(refresh))
		}
		t.Put(session)
		return nil
	})
}
