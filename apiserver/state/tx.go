package state

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/store"
)

// Tx is a transaction: what it read, each with the revision that the commit requires, and what it writes. It reads only one
// view and its own writes, never the cache, so repeated reads return the same object.
type Tx struct {
	Actor identity.Actor // the actor who makes the change
	Now   time.Time
	Hosts Hosts
	Vault *identity.Vault // nil for a server without an identity
	// DryRun is true if nothing will be committed.
	DryRun bool
	// Lease is what the commit requires, if the change belongs to work that one server at a time does.
	Lease store.Lease
	// Agent is what the commit requires, if the change says something about a node's agent. What this server knows of that may be
	// older than the objects that it has.
	Agent store.AgentRecord

	Seen   *View
	reads  map[string]int64 // key -> revision; 0 if the object did not exist
	writes map[string]proto.Message
	order  []string // keys of writes, in order
}

// Begin returns an empty transaction on a view.
func Begin(seen *View) *Tx {
	return &Tx{Seen: seen, reads: map[string]int64{}, writes: map[string]proto.Message{}}
}

// WritesSoFar returns how many objects the transaction writes.
func (t *Tx) WritesSoFar() int { return len(t.order) }

// Commit stores the writes and returns their revision.
func (t *Tx) Commit(ctx context.Context, to store.Store) (int64, error) {
	txn := store.Txn{If: make([]store.Condition, 0, len(t.reads)), Do: make([]store.Op, 0, len(t.order)), Lease: t.Lease, Agent: t.Agent}
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

// Read returns an object, shared and immutable. Its revision becomes a condition of the commit.
func Read[T proto.Message](t *Tx, name string) (T, bool) {
	v, ok := t.Object(KindOf[T](), name).(T)
	return v, ok
}

// Object reads an object by its kind. It returns nil if the object does not exist.
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
	return e.Message()
}

// insist makes a revision a condition. The first revision of a key counts, since decisions were made on it.
func (t *Tx) insist(key string, rev int64) {
	if _, ok := t.reads[key]; !ok {
		t.reads[key] = rev
	}
}

// Put writes an object, which belongs to the transaction from then on.
func (t *Tx) Put(m proto.Message) { t.Write(Key(KindName(m), api.Meta(m).GetName()), m) }

// Remove removes an object.
func (t *Tx) Remove(kind, name string) { t.Write(Key(kind, name), nil) }

// Write writes an object to a key; nil removes it.
func (t *Tx) Write(key string, m proto.Message) {
	if _, ok := t.writes[key]; !ok {
		t.order = append(t.order, key)
	}
	t.writes[key] = m
}
