// Package store is the revisioned object store under the apiserver: opaque keys to bytes, transactions with
// preconditions, and a change log that a watch reads. It is the floor of the house: a push passes it once when the
// apiserver commits at revision R, and leaves it again as the watch that wakes the scheduler, the agent and caractrl.
// Only the apiserver speaks to it. This package holds the contract and its values; store/pebble keeps them on disk,
// store/storetest is the suite that every backend passes.
//
// What every backend keeps:
//
//  1. Acknowledged is durable: when Commit returns a revision, the transaction survives kill -9 and power loss.
//  2. Revisions increase strictly and may have holes: each transaction that changes something takes a newer one, and
//     whoever sees revision R, by Get, List, Commit or Watch, can already see everything below R.
//  3. A transaction is seen whole or not at all, by readers, by watchers and after a crash.
//  4. List at R, then Watch after R: nothing is missed and nothing is told twice.
package store

import (
	"context"
	"iter"
)

// KV is one object. Created and Modified are the revisions at which the key last came into being and was last
// written; a key that is deleted and put again has a new Created. The receiver owns Value.
type KV struct {
	Key               string
	Value             []byte
	Created, Modified int64
}

// Event is what a transaction did to one key. For a delete, KV has the Key, Modified is the revision of the deletion,
// Created is the one the key had, and Value is nil.
type Event struct {
	Delete bool
	KV     KV
}

// Change is one committed transaction as a watcher sees it: its events in the order of Txn.Do.
type Change struct {
	Revision int64
	Events   []Event
}

// Page is a part of a listing in ascending byte order of keys. Revision is the one the page was read at: all of it at
// once, and a Watch after it continues without a gap. More says that keys follow the last one; the next page is read
// at its own, possibly later, revision.
type Page struct {
	KVs      []KV
	Revision int64
	More     bool
}

// ListOptions narrow a listing to the keys strictly after After, and to at most Limit of them; 0 is all.
type ListOptions struct {
	After string
	Limit int
}

// Condition holds when the key's Modified equals Modified; 0 means that the key must not exist.
type Condition struct {
	Key      string
	Modified int64
}

// Op puts Value under Key, or deletes Key. To delete a key that does not exist is allowed and makes no event.
type Op struct {
	Key    string
	Value  []byte
	Delete bool
}

// Txn does all of Do if every condition in If holds before it, else nothing. Validate says what is well formed.
type Txn struct {
	If []Condition
	Do []Op
}

// Store is what a backend gives. All methods may be called from many goroutines. The errors to test for are those
// of this package, by errors.Is and errors.As; any other error is the backend's trouble and says nothing about keys.
type Store interface {
	// Get returns the newest committed value of key, or ErrNotFound.
	Get(ctx context.Context, key string) (KV, error)

	// List returns the objects whose key starts with prefix ("" is every key), read at one revision.
	List(ctx context.Context, prefix string, o ListOptions) (Page, error)

	// Commit applies t and returns its revision once it is durable. A transaction that changes nothing, since it
	// only deletes keys that do not exist, takes no revision and returns the newest one. A condition that does not
	// hold is a *ConflictError for the first such condition; a malformed t is ErrInvalid.
	//
	// When ctx ends first, Commit returns its error without waiting, and the transaction may or may not be applied:
	// read before trying again. The store may still be reading t then, so the caller never reuses its slices.
	Commit(ctx context.Context, t Txn) (int64, error)

	// Watch yields every change with Revision > after, in order, each once, and then waits for more until ctx ends,
	// whose error it yields last. 0 begins at the store's first transaction.
	//
	// ErrCompacted when the log no longer has what follows after, or has never had it (after lies ahead of the
	// store, as with a restored backup): List again and watch from there. This can also end a watch that reads too
	// slowly. After an error the sequence ends.
	Watch(ctx context.Context, after int64) iter.Seq2[Change, error]

	// Compact forgets the change log up to and including revision. Objects stay. A revision that is already
	// compacted is fine; one that the store has not reached is ErrInvalid.
	Compact(ctx context.Context, revision int64) error
}
