package state

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/store"
)

// Tx is one change in the making: what it read, each with the revision that the transaction will insist on, and what
// it writes. All of its reads are of one view and of its own writes, never of the cache: what it has read once it reads
// again.
type Tx struct {
	Actor identity.Actor // who makes the change
	Now   time.Time
	Hosts Hosts
	Vault *identity.Vault // nil for a server without an identity

	Seen   *View
	reads  map[string]int64 // key -> revision; 0 where there was nothing
	writes map[string]proto.Message
	order  []string // keys of writes, as they came
}

// Begin makes an empty change on a view.
func Begin(seen *View) *Tx {
	return &Tx{Seen: seen, reads: map[string]int64{}, writes: map[string]proto.Message{}}
}

// WritesSoFar is how many objects the change writes.
func (t *Tx) WritesSoFar() int { return len(t.order) }

// Commit stores what was written, and returns its revision.
func (t *Tx) Commit(ctx context.Context, to store.Store) (int64, error) {
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
		value, err := Encode(m)
		if err != nil {
			return 0, err
		}
		if len(value) > store.MaxValue {
			return 0, api.TooLarge("%s %q has %d KiB, at most %d KiB can be stored: split it", KindName(m), api.Meta(m).GetName(), len(value)>>10, store.MaxValue>>10)
		}
		txn.Do = append(txn.Do, store.Op{Key: key, Value: value})
	}
	rev, err := to.Commit(ctx, txn)
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

// Read returns an object, shared and immutable, as the transaction will insist that it is.
func Read[T proto.Message](t *Tx, name string) (T, bool) {
	v, ok := t.Object(KindOf[T](), name).(T)
	return v, ok
}

// Object reads an object by its kind: nil where there is none.
func (t *Tx) Object(kind, name string) proto.Message {
	key := Key(kind, name)
	if m, written := t.writes[key]; written {
		return m
	}
	e := t.Seen.Entry(kind, name)
	if e == nil {
		t.insist(key, 0)
		return nil
	}
	t.insist(key, e.Rev)
	return e.Msg
}

// insist makes a revision a condition. The first one counts: what was decided on it must not be let through by a
// later look.
func (t *Tx) insist(key string, rev int64) {
	if _, ok := t.reads[key]; !ok {
		t.reads[key] = rev
	}
}

// Put writes an object, which the transaction owns from now on.
func (t *Tx) Put(m proto.Message) { t.Write(Key(KindName(m), api.Meta(m).GetName()), m) }

// Remove takes an object away.
func (t *Tx) Remove(kind, name string) { t.Write(Key(kind, name), nil) }

// Write writes an object under a key; nil takes it away.
func (t *Tx) Write(key string, m proto.Message) {
	if _, ok := t.writes[key]; !ok {
		t.order = append(t.order, key)
	}
	t.writes[key] = m
}
