package apiserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/dispatch"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// tokens is the Authenticator of a server with an identity: bearer tokens for people and pipelines, client certificates for
// nodes. It looks up both for every call, so a revocation takes effect with the next call.
type tokens struct{ *Server }

// Authenticate returns the caller.
func (s tokens) Authenticate(ctx context.Context) (identity.Actor, error) {
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) > 0 {
		if len(values) > 1 {
			return identity.Actor{}, api.Unauthenticated("there is more than one Authorization header: send one")
		}
		return s.bearer(ctx, values[0])
	}
	cert, ok, err := s.cfg.Identity.PeerNode(dispatch.PeerTLS(ctx))
	switch {
	case err != nil:
		return identity.Actor{}, api.Unauthenticated("%v", err)
	case !ok:
		return identity.Actor{}, nil
	}
	switch accepted, err := s.accepted(ctx, cert); {
	case err != nil:
		return identity.Actor{}, err
	case !accepted:
		return identity.Actor{}, dispatch.ErrFenced(cert.Node)
	}
	return identity.Actor{Name: api.PrefixNode + cert.Node, Role: api.RoleNode, Token: cert.TokenName(), Expires: cert.NotAfter}, nil
}

func (s tokens) bearer(ctx context.Context, header string) (identity.Actor, error) {
	id, secret, err := identity.ParseBearer(header)
	if err != nil {
		return identity.Actor{}, api.Unauthenticated("%v", err)
	}
	if session, err := s.sessions.KnownSession(identity.FormatToken(id, secret)); err == nil {
		return s.ofCaractrl(session)
	}
	token, ok, err := state.Find[*carav1.Token](ctx, s.db, id)
	if err != nil {
		return identity.Actor{}, err
	}
	if !ok {
		session, err := s.sessions.FindSession(ctx, identity.FormatToken(id, secret))
		if err == nil {
			return s.ofCaractrl(session)
		}
		if api.Code(err) != codes.Unauthenticated {
			return identity.Actor{}, err
		}
	}
	if !ok || !identity.SecretMatches(token.GetSecretHash(), secret) {
		return identity.Actor{}, errToken()
	}
	return s.actorOf(token)
}

// ofCaractrl returns the caller that a session authenticates whose secret is used as a token: only caractrl does that.
func (s tokens) ofCaractrl(session *carav1.Session) (identity.Actor, error) {
	if session.GetClient() != api.SessionCaractrl || session.GetLink() {
		return identity.Actor{}, errToken()
	}
	return sessions(s).actor(session)
}

func errToken() error {
	return api.Unauthenticated("the token is not valid here: it was revoked, or is of another cluster")
}

// actorOf returns the actor that a valid token authenticates.
func (s *Server) actorOf(token *carav1.Token) (identity.Actor, error) {
	id := token.GetMetadata().GetName()
	if at := token.GetExpireAt(); at != nil && !at.AsTime().After(s.db.Now()) {
		return identity.Actor{}, api.Unauthenticated("token %q ended at %s: ask an administrator for another one",
			id, at.AsTime().UTC().Format(time.RFC3339))
	}
	role, ok := objects.TokenRole(token.GetRole())
	if !ok {
		return identity.Actor{}, api.Unauthenticated("token %q is for agents to join with, not for calls", id)
	}
	actor := identity.Actor{Name: api.PrefixUser + id, Role: role, Hosts: token.GetHosts(), Token: id}
	if prefix := token.GetNamePrefix(); prefix != "" {
		actor.NamePrefixes = []string{prefix}
	}
	if at := token.GetExpireAt(); at != nil {
		actor.Expires = at.AsTime()
	}
	return actor, nil
}

// accepted reports whether the cluster accepts a node's certificate.
func (s *Server) accepted(ctx context.Context, cert identity.NodeCertificate) (bool, error) {
	token, ok, err := state.Find[*carav1.Token](ctx, s.db, cert.TokenName())
	return ok && token.GetRole() == api.RoleNode && identity.HashMatches(token.GetSecretHash(), cert.Hash), err
}

// Names of the tokens of the first start.
const (
	firstAdmin = "admin"
	firstJoin  = "join"
)

// FirstStart creates the first tokens, one for the administrator and one for joining, each in a file of the data directory.
// It does so only if there is no administrator token. DeleteToken never removes the last one, so this happens once. Run
// calls FirstStart first. Code that announces the server calls it earlier, so that the files exist by then.
func (s *Server) FirstStart(ctx context.Context) error {
	if s.cfg.Identity == nil {
		return nil
	}
	page, err := s.db.Store.List(ctx, state.Key(api.KindToken, ""), store.ListOptions{})
	if err != nil {
		return fmt.Errorf("list tokens: %w", err)
	}
	have := map[string]int64{}
	for _, kv := range page.KVs {
		m, err := state.Decode(&carav1.Token{}, kv.Value, kv.Modified)
		if err != nil {
			return fmt.Errorf("read %s: %w", kv.Key, err)
		}
		token := m.(*carav1.Token)
		if token.GetRole() == api.RoleAdmin && token.GetExpireAt() == nil {
			return nil
		}
		have[token.GetMetadata().GetName()] = kv.Modified
	}
	adminSecret, joinSecret, fresh, err := s.cfg.Identity.FirstTokens(firstAdmin, firstJoin)
	if err != nil {
		return fmt.Errorf("make the first tokens: %w", err)
	}
	var txn store.Txn
	for _, token := range []*carav1.Token{
		{Metadata: &carav1.ObjectMeta{Name: firstAdmin}, Role: api.RoleAdmin, SecretHash: identity.HashSecret(adminSecret)},
		objects.WithJoinLimits(&carav1.Token{Metadata: &carav1.ObjectMeta{Name: firstJoin}, Role: api.RoleJoin, SecretHash: identity.HashSecret(joinSecret)}, s.db.Now()),
	} {
		name := token.GetMetadata().GetName()
		key := state.Key(api.KindToken, name)
		token.Metadata.Uid, token.Metadata.CreationTimestamp = state.NewUID(), timestamppb.New(s.db.Now())
		value, err := state.Encode(token)
		if err != nil {
			return err
		}
		txn.If = append(txn.If, store.Condition{Key: key, Modified: have[name]})
		txn.Do = append(txn.Do, store.Op{Key: key, Value: value})
	}
	_, err = s.db.Store.Commit(ctx, txn)
	switch {
	case errors.Is(err, store.ErrConflict): // another server has created the tokens at the same moment
		err = s.cfg.Identity.DropTokens(fresh)
	case err != nil:
		err = fmt.Errorf("store the first tokens: %w", err)
	}
	return err
}
