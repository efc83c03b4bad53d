package state

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/store"
)

// batchConflicts limits how often the batches of one call run again because of a conflict. After that, the changes of a batch
// that met one have a transaction each, so that an object that changes all the time cannot hold up the others.
const batchConflicts = 4

// batch is several changes in one transaction.
type batch struct {
	tx      *Tx
	size    int   // bytes of the writes
	members []int // indexes of the changes
}

// join adds a change to a batch. It returns false, and leaves the batch as it is, if both would not fit into one
// transaction, if one of them reads or writes what the other writes, or if one of them depends on an agent. So the order of the
// members does not matter, and a batch has the same effect as its members one after the other.
func (b *batch) join(t *Tx, member int) bool {
	size := t.size()
	if b.tx == nil {
		b.tx, b.size, b.members = t, size, []int{member}
		return true
	}
	if len(b.tx.order)+len(t.order) > store.MaxOps || b.size+size > store.MaxTxn || b.tx.meets(t) || t.meets(b.tx) {
		return false
	}
	if none := (store.AgentRecord{}); b.tx.Agent != none || t.Agent != none {
		return false
	}
	conditions := len(b.tx.reads)
	for key := range t.reads {
		if _, both := b.tx.reads[key]; !both {
			conditions++
		}
	}
	if conditions > store.MaxConditions {
		return false
	}
	for key, rev := range t.reads {
		b.tx.insist(key, rev)
	}
	for _, key := range t.order {
		b.tx.Write(key, t.writes[key])
	}
	b.size += size
	b.members = append(b.members, member)
	return true
}

// meets reports whether t writes a key that other reads or writes.
func (t *Tx) meets(other *Tx) bool {
	for _, key := range t.order {
		_, read := other.reads[key]
		_, written := other.writes[key]
		if read || written {
			return true
		}
	}
	return false
}

// size returns how many bytes of the store's limit the writes need.
func (t *Tx) size() int {
	size := 0
	for key, m := range t.writes {
		if size += len(key); m != nil {
			size += proto.Size(m)
		}
	}
	return size
}

// TransactAll is Transact for several changes that do not depend on each other. It commits them in as few transactions as
// possible, and returns an error, or nil, for each. A change that reads or writes what another one writes runs after it.
func (d *DB) TransactAll(ctx context.Context, changes []func(*Tx) error) []error {
	errs := make([]error, len(changes))
	todo := make([]int, len(changes))
	for i := range todo {
		todo[i] = i
	}
	for conflicts := 0; len(todo) > 0; {
		var b batch
		b, todo = d.gather(ctx, changes, todo, errs)
		err := d.commit(ctx, b)
		if errors.Is(err, store.ErrConflict) && conflicts < batchConflicts {
			conflicts++
			if err = d.awaitNewer(ctx, b.tx.Seen.Rev, err); err == nil {
				todo = append(b.members, todo...)
				continue
			}
		}
		for _, i := range b.members {
			if errs[i] = err; ofOneChange(err) {
				errs[i] = d.Transact(ctx, changes[i])
			}
		}
	}
	return errs
}

// ofOneChange reports whether a batch failed because of one of its members.
func ofOneChange(err error) bool {
	return errors.Is(err, store.ErrConflict) || api.Code(err) == codes.InvalidArgument || api.Code(err) == codes.ResourceExhausted
}

// gather runs changes on one view until they fill a batch, and returns those that are left.
func (d *DB) gather(ctx context.Context, changes []func(*Tx) error, todo []int, errs []error) (b batch, left []int) {
	seen := d.Cache.View()
	for n, i := range todo {
		t := d.beginOn(ctx, seen)
		if errs[i] = changes[i](t); errs[i] != nil || t.WritesSoFar() == 0 {
			continue
		}
		if !b.join(t, i) {
			return b, todo[n:]
		}
	}
	return b, nil
}

// commit stores a batch and waits until the cache has it.
func (d *DB) commit(ctx context.Context, b batch) error {
	if len(b.members) == 0 {
		return nil
	}
	rev, err := b.tx.Commit(ctx, d.Store)
	switch {
	case err == nil:
		return d.Cache.Wait(ctx, rev)
	case errors.Is(err, store.ErrConflict):
		return err
	}
	return StoreError(err)
}
