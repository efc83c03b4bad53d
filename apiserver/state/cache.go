package state

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// Entry is one object as the cache has it. Everything in it is immutable; json is filled at the first use.
type Entry struct {
	Name string
	Msg  proto.Message
	Rev  int64
	json atomic.Pointer[[]byte]
}

// JSON returns the object's JSON, which encode makes at the first call.
func (e *Entry) JSON(encode func() ([]byte, error)) ([]byte, error) {
	if kept := e.json.Load(); kept != nil {
		return *kept, nil
	}
	out, err := encode()
	if err == nil {
		e.json.Store(&out)
	}
	return out, err
}

// Change is what one transaction did to one object. old is nil for an object that is new, and where the change was
// read from the store's log and the old state is not known; new is nil for one that is gone.
type Change struct {
	Kind, Name string
	Old, New   proto.Message
	Created    bool           // the transaction made the object
	Wire       *carav1.Change // shared by all watchers; nil for kinds that are not watched
}

// Transaction is all of the changes of one revision.
type Transaction struct {
	Rev     int64
	Changes []Change
}

// Cache has every object, decoded, as a chain of views. feed is its only writer.
type Cache struct {
	Loaded chan struct{} // closed once the first listing is in
	Ended  chan struct{} // closed when feed has returned: nothing new comes
	newest atomic.Pointer[View]

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

// NewCache returns an empty cache that will keep the changes of recent objects for watchers.
func NewCache(recent int) *Cache {
	c := &Cache{
		Loaded: make(chan struct{}),
		Ended:  make(chan struct{}),
		recent: ring{limit: recent},
		wake:   make(chan struct{}),
	}
	c.newest.Store(newView())
	return c
}

// View returns the newest view. Two calls may return different ones: whoever decides something on what he reads takes
// one view and reads that.
func (c *Cache) View() *View { return c.newest.Load() }

// Feed lists the store, then follows its log until ctx ends. Any error is the end of the server: a cache that does
// not follow would answer with the past.
func (c *Cache) Feed(ctx context.Context, st store.Store) error {
	defer close(c.Ended)
	page, err := st.List(ctx, "", store.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the store: %w", err)
	}
	first := Transaction{Rev: page.Revision}
	var revisions []int64 // of each object's last write: not every object has metadata that says it
	for _, kv := range page.KVs {
		ch, ok, err := decodeEvent(store.Event{KV: kv})
		if err != nil {
			return err
		}
		if ok {
			first.Changes = append(first.Changes, ch)
			revisions = append(revisions, kv.Modified)
		}
	}
	filled := newView()
	filled.Rev = page.Revision
	for i := range first.Changes {
		filled.set(&first.Changes[i], revisions[i])
	}
	for _, name := range filled.StagedSources() {
		filled.enforce(name, page.Revision)
	}
	c.newest.Store(filled)
	c.mu.Lock()
	c.recent.floor = page.Revision
	c.mu.Unlock()
	close(c.Loaded)
	for sc, err := range st.Watch(ctx, page.Revision) {
		if err != nil {
			return fmt.Errorf("follow the store: %w", err)
		}
		tx, err := DecodeChange(sc)
		if err != nil {
			return err
		}
		c.Apply(tx)
	}
	return ctx.Err()
}

// Apply makes one transaction visible, whole.
func (c *Cache) Apply(tx Transaction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next, tx := c.newest.Load().with(tx)
	c.newest.Store(next)
	if len(tx.Changes) > 0 {
		c.recent.push(tx)
		close(c.wake)
		c.wake = make(chan struct{})
	}
	kept := c.waiters[:0]
	for _, w := range c.waiters {
		if w.rev > tx.Rev {
			kept = append(kept, w)
			continue
		}
		close(w.done)
	}
	clear(c.waiters[len(kept):])
	c.waiters = kept
}

// Wait returns when the cache has reached rev.
func (c *Cache) Wait(ctx context.Context, rev int64) error {
	c.mu.Lock()
	if c.Revision() >= rev {
		c.mu.Unlock()
		return nil
	}
	w := waiter{rev: rev, done: make(chan struct{})}
	c.waiters = append(c.waiters, w)
	c.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-c.Ended:
		return ErrDraining()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Filled waits for the cache: before, there is nothing to answer with.
func (c *Cache) Filled(ctx context.Context) error {
	select {
	case <-c.Loaded:
		return nil
	case <-c.Ended:
		return ErrDraining()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Await returns when done says so, asking it at every transaction, or when ctx ends.
func (c *Cache) Await(ctx context.Context, done func() bool) error {
	for {
		c.mu.RLock()
		wake := c.wake
		c.mu.RUnlock()
		if done() {
			return nil
		}
		select {
		case <-wake:
		case <-c.Ended:
			return ErrDraining()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Revision is how far the cache has come.
func (c *Cache) Revision() int64 { return c.View().Rev }

// Entry returns one object, or nil.
func (c *Cache) Entry(kind, name string) *Entry { return c.View().Entry(kind, name) }

// ProjectsOnNode returns the names of the projects that are assigned to a node now.
func (c *Cache) ProjectsOnNode(node string) []string { return c.View().ProjectsOnNode(node) }

// ReadChunk is how many transactions a watcher takes at once.
const ReadChunk = 256

// After returns the next transactions after rev, and what to wait for where there are none; ok is false where they are
// no longer in memory.
func (c *Cache) After(rev int64) (txs []Transaction, wake <-chan struct{}, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	txs, ok = c.recent.after(rev, ReadChunk)
	return txs, c.wake, ok
}

// Reaches says whether everything after rev is in memory.
func (c *Cache) Reaches(rev int64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return rev >= c.recent.floor
}

// ErrDraining is the error of whoever waits for a cache that follows no more.
func ErrDraining() error {
	return api.Unavailable("the server is shutting down: connect again")
}
