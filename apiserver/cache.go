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

// cache has every object, decoded, as a chain of views. feed is its only writer.
type cache struct {
	loaded chan struct{} // closed once the first listing is in
	ended  chan struct{} // closed when feed has returned: nothing new comes
	newest atomic.Pointer[view]

	mu      sync.RWMutex
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
		recent: ring{limit: recent},
		wake:   make(chan struct{}),
	}
	c.newest.Store(newView())
	return c
}

// view returns the newest view. Two calls may return different ones: whoever decides something on what he reads takes
// one view and reads that.
func (c *cache) view() *view { return c.newest.Load() }

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
	filled := newView()
	filled.rev = page.Revision
	for i := range first.changes {
		filled.set(&first.changes[i], revisions[i])
	}
	c.newest.Store(filled)
	c.mu.Lock()
	c.recent.floor = page.Revision
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
	c.newest.Store(c.newest.Load().with(tx))
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

// wait returns when the cache has reached rev.
func (c *cache) wait(ctx context.Context, rev int64) error {
	c.mu.Lock()
	if c.revision() >= rev {
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
func (c *cache) revision() int64 { return c.view().rev }

// entry returns one object, or nil.
func (c *cache) entry(kind, name string) *entry { return c.view().entry(kind, name) }

// projectsOnNode returns the names of the projects that are assigned to a node now.
func (c *cache) projectsOnNode(node string) []string { return c.view().projectsOnNode(node) }
