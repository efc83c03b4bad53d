package apiserver

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/store"
)

// maxAttempts bounds how often a change runs again because what it had read was changed under it.
const maxAttempts = 32

// conflictWait is how long the cache may take to show the change that was in the way.
const conflictWait = time.Second

// tx is one change in the making: what it read, each with the revision that the transaction will insist on, and what
// it writes. All of its reads are of one view and of its own writes, never of the cache: what it has read once it reads
// again. It belongs to the function that transact calls with it, which is called again with another one after a conflict.
type tx struct {
	server *Server
	seen   *view
	actor  Actor
	now    time.Time
	reads  map[string]int64 // key -> revision; 0 where there was nothing
	writes map[string]proto.Message
	order  []string // keys of writes, as they came
}

// transact runs change and commits what it wrote, on condition that nothing it read is another by then; else it runs
// it again on the newer state. It returns when the cache has what was written, with its revision filled in. A change
// that writes nothing commits nothing.
func (s *Server) transact(ctx context.Context, change func(*tx) error) error {
	for range maxAttempts {
		t := s.begin(ctx)
		if err := change(t); err != nil {
			return err
		}
		if len(t.order) == 0 {
			return nil
		}
		rev, err := t.commit(ctx)
		if err == nil {
			return s.cache.wait(ctx, rev)
		}
		if !errors.Is(err, store.ErrConflict) {
			return storeError(err)
		}
		if err := s.awaitNewer(ctx, t.seen.rev); err != nil {
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
	err := s.cache.wait(bounded, seen+1)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		s.cfg.Logger.Error("a conflict that no newer revision explains", "rev", seen)
		return nil
	}
	return err
}

// begin makes an empty change. Whoever drops it instead of committing it has done a dry run.
func (s *Server) begin(ctx context.Context) *tx {
	return &tx{
		server: s, seen: s.cache.view(), actor: actorOf(ctx), now: s.cfg.Now(),
		reads: map[string]int64{}, writes: map[string]proto.Message{},
	}
}

// commit stores what was written, and returns its revision.
func (t *tx) commit(ctx context.Context) (int64, error) {
	txn := store.Txn{If: make([]store.Condition, 0, len(t.reads)), Do: make([]store.Op, 0, len(t.order))}
	for key, rev := range t.reads {
		txn.If = append(txn.If, store.Condition{Key: key, Modified: rev})
	}
	for _, key := range t.order {
		m := t.writes[key]
		if m == nil {
			txn.Do = append(txn.Do, store.Op{Key: key, Delete: true})
			continue
		}
		value, err := encode(m)
		if err != nil {
			return 0, err
		}
		txn.Do = append(txn.Do, store.Op{Key: key, Value: value})
	}
	rev, err := t.server.cfg.Store.Commit(ctx, txn)
	if err != nil {
		return 0, err
	}
	for _, m := range t.writes {
		if meta := api.Meta(m); m != nil && meta != nil {
			meta.ResourceVersion = api.FormatRevision(rev)
		}
	}
	return rev, nil
}

// read returns an object, shared and immutable, as the transaction will insist that it is.
func read[T proto.Message](t *tx, name string) (T, bool) {
	v, ok := t.object(kindOf[T](), name).(T)
	return v, ok
}

// object reads an object by its kind: nil where there is none.
func (t *tx) object(kind, name string) proto.Message {
	key := keyOf(kind, name)
	if m, written := t.writes[key]; written {
		return m
	}
	e := t.seen.entry(kind, name)
	if e == nil {
		t.insist(key, 0)
		return nil
	}
	t.insist(key, e.rev)
	return e.msg
}

// insist makes a revision a condition. The first one counts: what was decided on it must not be let through by a
// later look.
func (t *tx) insist(key string, rev int64) {
	if _, ok := t.reads[key]; !ok {
		t.reads[key] = rev
	}
}

// put writes an object, which the transaction owns from now on.
func (t *tx) put(m proto.Message) { t.write(keyOf(kindName(m), api.Meta(m).GetName()), m) }

// remove takes an object away.
func (t *tx) remove(kind, name string) { t.write(keyOf(kind, name), nil) }

func (t *tx) write(key string, m proto.Message) {
	if _, ok := t.writes[key]; !ok {
		t.order = append(t.order, key)
	}
	t.writes[key] = m
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
