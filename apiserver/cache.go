package apiserver

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// entry is one object as the cache has it. Everything in it is immutable; json is filled at the first use.
type entry struct {
	name string
	msg  proto.Message
	rev  int64
	json atomic.Pointer[[]byte]
}

// change is what one transaction did to one object. old is nil for an object that is new, and where the change was
// read from the store's log and the old state is not known; new is nil for one that is gone.
type change struct {
	kind, name string
	old, new   proto.Message
	created    bool           // the transaction made the object
	wire       *carav1.Change // shared by all watchers; nil for kinds that are not watched
}

// transaction is all of the changes of one revision.
type transaction struct {
	rev     int64
	changes []change
}

// cache has every object, decoded. feed is its only writer.
type cache struct {
	loaded chan struct{} // closed once the first listing is in
	ended  chan struct{} // closed when feed has returned: nothing new comes

	mu      sync.RWMutex
	rev     int64
	tables  map[string]*table
	index   index
	recent  ring
	wake    chan struct{} // closed and replaced with every transaction
	waiters []waiter
}

// waiter waits for the cache to reach a revision.
type waiter struct {
	rev  int64
	done chan struct{}
}

func newCache(recent int) *cache {
	c := &cache{
		loaded: make(chan struct{}),
		ended:  make(chan struct{}),
		tables: make(map[string]*table, len(kinds)),
		index:  newIndex(),
		recent: ring{limit: recent},
		wake:   make(chan struct{}),
	}
	for i := range kinds {
		c.tables[kinds[i].kind] = newTable()
	}
	return c
}

// feed lists the store, then follows its log until ctx ends. Any error is the end of the server: a cache that does
// not follow would answer with the past.
func (c *cache) feed(ctx context.Context, st store.Store) error {
	defer close(c.ended)
	page, err := st.List(ctx, "", store.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the store: %w", err)
	}
	first := transaction{rev: page.Revision}
	var revisions []int64 // of each object's last write: not every object has metadata that says it
	for _, kv := range page.KVs {
		ch, ok, err := decodeEvent(store.Event{KV: kv})
		if err != nil {
			return err
		}
		if ok {
			first.changes = append(first.changes, ch)
			revisions = append(revisions, kv.Modified)
		}
	}
	c.mu.Lock()
	for i := range first.changes {
		c.set(&first.changes[i], revisions[i])
	}
	c.rev, c.recent.floor = page.Revision, page.Revision
	c.mu.Unlock()
	close(c.loaded)
	for sc, err := range st.Watch(ctx, "", page.Revision) {
		if err != nil {
			return fmt.Errorf("follow the store: %w", err)
		}
		tx, err := decodeChange(sc)
		if err != nil {
			return err
		}
		c.apply(tx)
	}
	return ctx.Err()
}

// apply makes one transaction visible, whole.
func (c *cache) apply(tx transaction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range tx.changes {
		c.set(&tx.changes[i], tx.rev)
	}
	c.rev = tx.rev
	if len(tx.changes) > 0 {
		c.recent.push(tx)
		close(c.wake)
		c.wake = make(chan struct{})
	}
	kept := c.waiters[:0]
	for _, w := range c.waiters {
		if w.rev > tx.rev {
			kept = append(kept, w)
			continue
		}
		close(w.done)
	}
	clear(c.waiters[len(kept):])
	c.waiters = kept
}

// set puts one change into its table and the indexes, and completes it with the state before.
func (c *cache) set(ch *change, rev int64) {
	t := c.tables[ch.kind]
	ch.old = t.message(ch.name)
	if ch.new == nil {
		t.remove(ch.name)
	} else {
		t.put(&entry{name: ch.name, msg: ch.new, rev: rev})
	}
	c.index.update(ch)
	ch.complete()
}

// wait returns when the cache has reached rev.
func (c *cache) wait(ctx context.Context, rev int64) error {
	c.mu.Lock()
	if c.rev >= rev {
		c.mu.Unlock()
		return nil
	}
	w := waiter{rev: rev, done: make(chan struct{})}
	c.waiters = append(c.waiters, w)
	c.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-c.ended:
		return errDraining()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await returns when done says so, asking it at every transaction, or when ctx ends.
func (c *cache) await(ctx context.Context, done func() bool) error {
	for {
		c.mu.RLock()
		wake := c.wake
		c.mu.RUnlock()
		if done() {
			return nil
		}
		select {
		case <-wake:
		case <-c.ended:
			return errDraining()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// revision is how far the cache has come.
func (c *cache) revision() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.rev
}

// entry returns one object.
func (c *cache) entry(kind, name string) *entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.tables[kind].byName[name]
}

// lookup returns one object, shared and immutable.
func lookup[T proto.Message](c *cache, name string) (T, bool) {
	if e := c.entry(kindOf[T](), name); e != nil {
		return e.msg.(T), true
	}
	var zero T
	return zero, false
}

// from returns the objects of a kind whose names begin with prefix and come after after, in the order of their names,
// shared and immutable, and the revision they show.
func from[T proto.Message](c *cache, prefix, after string) ([]T, int64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	t := c.tables[kindOf[T]()]
	out := make([]T, 0, t.sizeHint(prefix, 0))
	t.ascend(prefix, after, func(e *entry) bool {
		out = append(out, e.msg.(T))
		return true
	})
	return out, c.rev
}
