// Package store defines the revisioned object store of the apiserver: opaque keys to bytes, transactions with preconditions,
// and a change log that a watch reads. Only the apiserver uses it. A push reaches it when the apiserver commits at revision
// R, and leaves it as the watch event that wakes the scheduler, the agent and caractrl. This package is the contract;
// store/pebble implements it on disk, store/etcd in an etcd cluster, and store/storetest is the test suite for every backend.
//
// Invariants of every backend:
//
//  1. Acknowledged means durable: when Commit returns a revision, the transaction survives kill -9 and power loss.
//  2. Revisions increase strictly and may have gaps. Each transaction that changes something gets a newer one. After a
//     caller has seen revision R by Get, List, Commit or Watch, everything up to R is visible to all.
//  3. Readers and watchers see a whole transaction or nothing of it, also after a crash.
//  4. A List at R followed by a Watch after R misses nothing and repeats nothing.
package store

import (
	"context"
	"iter"
)

// KV is one object. Created and Modified are the revisions that created the key and that last wrote it. A key that is
// deleted and put again has a new Created. The receiver of Get and List owns Value.
type KV struct {
	Key               string
	Value             []byte
	Created, Modified int64
}

// Event is what a transaction did to one key. For a delete, KV has the Key, Modified is the revision of the deletion,
// Created is the revision that the key had, and Value is nil.
type Event struct {
	Delete bool
	KV     KV
}

// Change is one committed transaction as a watcher sees it: its events in the order of Txn.Do. More is true if the watch
// yields the next change without waiting, so that a receiver can handle both together.
type Change struct {
	Revision int64
	Events   []Event
	More     bool
}

// Page is a part of a listing in ascending byte order of keys. The whole page was read at Revision, and a Watch after it
// continues without a gap. More is true if keys follow the last one. The next page is read at its own, possibly later,
// revision.
type Page struct {
	KVs      []KV
	Revision int64
	More     bool
}

// ListOptions restrict a listing to keys strictly greater than After, and to at most Limit keys. A Limit of 0 means all.
type ListOptions struct {
	After string
	Limit int
}

// Condition holds if the key's modified revision equals Modified. 0 means that the key must not exist.
type Condition struct {
	Key      string
	Modified int64
}

// Op puts Value under Key, or deletes Key. Deleting a key that does not exist is allowed and makes no event.
type Op struct {
	Key    string
	Value  []byte
	Delete bool
}

// AgentRecord says which server has the session of a node's agent, in a backend that several servers use. Modified is its revision, or
// 0 if there is none. The zero value is no condition.
type AgentRecord struct {
	Node     string
	Modified int64
}

// Txn applies all of Do if every condition in If holds, its server still has the Lease, and the record of the Agent has not changed,
// otherwise nothing. Validate defines what is valid.
type Txn struct {
	If    []Condition
	Do    []Op
	Lease Lease       // optional; a backend for one server has none
	Agent AgentRecord // as Lease
}

// Store is the interface of a backend. All methods are safe for concurrent use. Callers test for the errors of this package
// with errors.Is and errors.As. Any other error is a failure of the backend and says nothing about keys.
type Store interface {
	// Get returns the newest committed value of key, or ErrNotFound.
	Get(ctx context.Context, key string) (KV, error)

	// List returns the objects whose key starts with prefix ("" is every key), read at one revision.
	List(ctx context.Context, prefix string, o ListOptions) (Page, error)

	// Commit applies t and returns its revision once it is durable. A transaction that only deletes keys that do not exist gets
	// no revision, and Commit returns the newest one. If a condition does not hold, Commit returns a *ConflictError for the
	// first such condition. If another server has the lease of t, it returns ErrLeaseLost, and if the agent of t has
	// connected or left since, ErrAgentMoved. A malformed t is ErrInvalid.
	//
	// If ctx ends first, Commit returns its error without waiting, and the transaction may or may not be applied: read before a
	// retry. The store keeps the slices of t for the watches, so nobody may change them after the call has begun.
	Commit(ctx context.Context, t Txn) (int64, error)

	// Watch yields every change with Revision > after, in order and exactly once. It then waits for more until ctx ends, and
	// yields the error of ctx last. 0 starts at the store's first transaction. Watches share the values, so nobody may change them.
	//
	// It yields ErrCompacted if the log no longer has the changes after that revision, or never had them (after is ahead of the
	// store, for example after a restored backup): List again and watch from there. A watch that reads too slowly may also end
	// this way. The sequence ends after an error.
	Watch(ctx context.Context, after int64) iter.Seq2[Change, error]

	// Compact drops the change log up to and including revision. Objects stay. A revision that is already compacted is allowed.
	// One that the store has not reached is ErrInvalid.
	Compact(ctx context.Context, revision int64) error
}

// Lease is the right of one server to do one kind of work, in a backend that several servers use. Created is the revision at which
// the server got it, and tells this holder from every other one. The zero value is no lease.
type Lease struct {
	Name    string
	Created int64
}

type leaseKey struct{}

// WithLease returns a context for work that needs a lease. Transactions of that work have the lease as a condition: see Txn.
func WithLease(ctx context.Context, l Lease) context.Context {
	if l == (Lease{}) {
		return ctx
	}
	return context.WithValue(ctx, leaseKey{}, l)
}

// LeaseOf returns the lease of the work that ctx belongs to.
func LeaseOf(ctx context.Context) Lease {
	l, _ := ctx.Value(leaseKey{}).(Lease)
	return l
}
