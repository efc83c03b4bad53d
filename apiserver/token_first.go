package apiserver

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

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
	for _, first := range []struct {
		name, secret string
		terms        *carav1.Token
	}{
		{firstAdmin, adminSecret, &carav1.Token{Role: api.RoleAdmin}},
		{firstJoin, joinSecret, objects.WithJoinLimits(&carav1.Token{Role: api.RoleJoin}, s.db.Now())},
	} {
		key := state.Key(api.KindToken, first.name)
		token := proto.CloneOf(first.terms)
		token.Metadata = &carav1.ObjectMeta{Name: first.name, Uid: state.NewUID(), CreationTimestamp: timestamppb.New(s.db.Now())}
		token.SecretHash = identity.HashSecret(first.secret)
		value, err := state.Encode(token)
		if err != nil {
			return err
		}
		txn.If = append(txn.If, store.Condition{Key: key, Modified: have[first.name]})
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
