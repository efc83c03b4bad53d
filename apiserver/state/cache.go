package state

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// applyTogether is about how many changes become visible together if they wait already. Each time costs a copy of the parts of the
// trees that change, and wakes every watcher. With more, the first caller would wait for the others.
const applyTogether = 256

// Entry is one object in the cache. It is immutable; json is set at the first use.
type Entry struct {
	Name string
	Rev  int64
	msg  proto.Message // the object, or an empty one of its kind if it is kept encoded
	kept string        // the object as it is stored; empty if it is kept decoded
	json atomic.Pointer[[]byte]
}

func newEntry(ch *Change, rev int64) *Entry {
	if ch.kept == "" {
		return &Entry{Name: ch.Name, Rev: rev, msg: ch.New}
	}
	return &Entry{Name: ch.Name, Rev: rev, msg: ch.New.ProtoReflect().Type().Zero().Interface(), kept: ch.kept}
}

// Message returns the object, which is shared and immutable.
func (e *Entry) Message() proto.Message {
	if e.kept == "" {
		return e.msg
	}
	m, err := Decode(e.msg, []byte(e.kept), e.Rev)
	if err != nil {
		panic(fmt.Sprintf("%s was decoded before: %v", e.Name, err))
	}
	return m
}

// MayHave reports whether a text can be in the object. It decodes nothing: false is certain, true is not.
func (e *Entry) MayHave(s string) bool {
	return e != nil && (e.kept == "" || strings.Contains(e.kept, s))
}

// JSON returns the object's JSON. The first call encodes it.
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

// Change is what one transaction did to one object. Old is nil for a new object, and if the change was read from the
// store's log and the old state is unknown. New is nil for a deleted object.
type Change struct {
	Kind, Name string
	Old, New   proto.Message
	Created    bool           // the transaction made the object
	kept       string         // the stored object, which the cache keeps instead of New; only for kinds of keptEncoded
	Wire       *carav1.Change // shared by all watchers; nil for kinds that are not watched
}

// Transaction holds all changes of one revision.
type Transaction struct {
	Rev     int64
	Changes []Change
}

// Cache holds every object as a sequence of views. Only Feed writes it.
type Cache struct {
	Loaded chan struct{} // closed when the first listing is loaded
	Ended  chan struct{} // closed when Feed has returned and no changes follow
	newest atomic.Pointer[View]
	last   atomic.Int64 // see Followed

	mu      sync.RWMutex
	recent  ring
	wake    chan struct{} // closed and replaced when transactions become visible
	waiters map[*waiter]struct{}
}

// waiter waits for the cache to reach a revision.
type waiter struct {
	rev  int64
	done chan struct{}
}

// NewCache returns an empty cache that keeps the given number of recent changes for watchers.
func NewCache(recent int) *Cache {
	c := &Cache{
		Loaded: make(chan struct{}),
		Ended:  make(chan struct{}),
		recent: ring{limit: recent},
		wake:   make(chan struct{}),

		waiters: map[*waiter]struct{}{},
	}
	c.newest.Store(newView())
	return c
}

// View returns the newest view. Two calls may return different views. Code that decides on what it reads must use one view.
func (c *Cache) View() *View { return c.newest.Load() }

// Feed lists the store, then follows its log until ctx ends. An error must end the server: a cache that does not follow the
// store would return outdated objects.
func (c *Cache) Feed(ctx context.Context, st store.Store) error {
	defer close(c.Ended)
	page, err := st.List(ctx, "", store.ListOptions{})
	if err != nil {
		return fmt.Errorf("list the store: %w", err)
	}
	first := Transaction{Rev: page.Revision}
	var revisions []int64 // of each object's last write, because not every object has metadata with a revision
	for _, kv := range page.KVs {
		c.last.Store(max(c.last.Load(), kv.Modified))
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
	filled.Rev, filled.Changed = page.Revision, page.Revision
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
	return c.follow(ctx, st, page.Revision)
}

// follow applies what the store's log has after a revision, until ctx ends.
func (c *Cache) follow(ctx context.Context, st store.Store, rev int64) error {
	var waiting []Transaction
	changes := 0
	for sc, err := range st.Watch(ctx, rev) {
		if err != nil {
			return fmt.Errorf("follow the store: %w", err)
		}
		tx, err := DecodeChange(sc)
		if err != nil {
			return err
		}
		waiting, changes = append(waiting, tx), changes+len(tx.Changes)
		if sc.More && changes < applyTogether {
			continue
		}
		c.Apply(waiting...)
		clear(waiting)
		waiting, changes = waiting[:0], 0
	}
	return ctx.Err()
}

// Apply makes transactions visible atomically.
func (c *Cache) Apply(txs ...Transaction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.newest.Load().with(txs)
	c.newest.Store(next)
	c.last.Store(next.Rev)
	changed := false
	for _, tx := range txs {
		if len(tx.Changes) > 0 {
			c.recent.push(tx)
			changed = true
		}
	}
	if changed {
		close(c.wake)
		c.wake = make(chan struct{})
	}
	for w := range c.waiters {
		if w.rev <= next.Rev {
			delete(c.waiters, w)
			close(w.done)
		}
	}
}

// Wait returns when the cache has reached rev.
func (c *Cache) Wait(ctx context.Context, rev int64) error {
	c.mu.Lock()
	if c.Revision() >= rev {
		c.mu.Unlock()
		return nil
	}
	w := &waiter{rev: rev, done: make(chan struct{})}
	c.waiters[w] = struct{}{}
	c.mu.Unlock()
	defer c.forget(w)
	select {
	case <-w.done:
		return nil
	case <-c.Ended:
		return ErrDraining()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget removes a waiter whose call has ended. The revision that it waits for may never come.
func (c *Cache) forget(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiters, w)
}

// Filled waits until the cache is loaded.
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

// Await returns when done returns true, or when ctx ends. It calls done whenever transactions became visible.
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

// Revision returns the newest revision in the cache.
func (c *Cache) Revision() int64 { return c.View().Rev }

// Followed returns the newest revision of a transaction that the cache knows to be in the store's log. Every other server reaches it.
// Revision is larger after a listing if the store also counts changes that it tells no cache, as etcd does.
func (c *Cache) Followed() int64 { return c.last.Load() }

// ReadChunk is how many transactions a watcher reads at a time.
const ReadChunk = 256

// After returns the next transactions after rev, and a channel to wait on if there are none. ok is false if they are no
// longer in memory.
func (c *Cache) After(rev int64) (txs []Transaction, wake <-chan struct{}, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	txs, ok = c.recent.after(rev, ReadChunk)
	return txs, c.wake, ok
}

// Track calls some with the transactions that become visible, in order, at most ReadChunk at a time, until ctx ends. It calls all first,
// and again when it was too slow and has missed some. While there are none, it calls idle with each tick; both are nil if there is
// nothing to do then.
func (c *Cache) Track(ctx context.Context, ticks <-chan time.Time, all func(), some func([]Transaction), idle func()) {
	for at := int64(-1); ctx.Err() == nil; {
		txs, wake, ok := c.After(at)
		if !ok {
			at = c.Revision()
			all()
			continue
		}
		if len(txs) > 0 {
			at = txs[len(txs)-1].Rev
			some(txs)
			continue
		}
		select {
		case <-wake:
		case <-ticks:
			idle()
		case <-ctx.Done():
		}
	}
}

// Reaches reports whether everything after rev is in memory.
func (c *Cache) Reaches(rev int64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return rev >= c.recent.floor
}

// ErrDraining is the error for a call that waits for a cache that no longer follows the store.
func ErrDraining() error {
	return api.Unavailable("the server is shutting down: connect again")
}
