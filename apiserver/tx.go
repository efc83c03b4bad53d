package apiserver

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	"github.com/caravanserai/cara/store"
)

// maxAttempts bounds how often a change runs again because what it had read was changed under it.
const maxAttempts = 32

// conflictWait is how long the cache may take to show the change that was in the way.
const conflictWait = time.Second

// tx is one change in the making, with what the rules of objects ask for. It belongs to the function that transact calls
// with it, which is called again with another one after a conflict.
type tx struct {
	*state.Tx
	server *Server
	actor  identity.Actor
	now    time.Time
}

// read returns an object, shared and immutable, as the transaction will insist that it is.
func read[T proto.Message](t *tx, name string) (T, bool) { return state.Read[T](t.Tx, name) }

// transact runs change and commits what it wrote, on condition that nothing it read is another by then; else it runs
// it again on the newer state. It returns when the cache has what was written, with its revision filled in. A change
// that writes nothing commits nothing.
func (s *Server) transact(ctx context.Context, change func(*tx) error) error {
	for range maxAttempts {
		t := s.begin(ctx)
		if err := change(t); err != nil {
			return err
		}
		if t.WritesSoFar() == 0 {
			return nil
		}
		rev, err := t.Commit(ctx, s.cfg.Store)
		if err == nil {
			return s.cache.Wait(ctx, rev)
		}
		if !errors.Is(err, store.ErrConflict) {
			return storeError(err)
		}
		if err := s.awaitNewer(ctx, t.Seen.Rev); err != nil {
			return err
		}
	}
	return api.Conflict("the object changes too fast: %d attempts met a newer state each, try again", maxAttempts)
}

// awaitNewer waits for the change that was in the way of a commit: it has a newer revision than everything that was
// seen. That the cache does not show it within a second is a mistake in this program, which is to be seen in the log and
// not in a caller that hangs.
func (s *Server) awaitNewer(ctx context.Context, seen int64) error {
	bounded, cancel := context.WithTimeout(ctx, conflictWait)
	defer cancel()
	err := s.cache.Wait(bounded, seen+1)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		s.cfg.Logger.Error("a conflict that no newer revision explains", "rev", seen)
		return nil
	}
	return err
}

// begin makes an empty change. Whoever drops it instead of committing it has done a dry run.
func (s *Server) begin(ctx context.Context) *tx {
	return &tx{Tx: state.Begin(s.cache.View()), server: s, actor: identity.ActorOf(ctx), now: s.cfg.Now()}
}

// storeError gives the store's errors the codes of the API.
func storeError(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, store.ErrInvalid):
		return api.BadRequest("%v", err)
	default:
		return api.Unavailable("the store does not take writes: %v", err)
	}
}
