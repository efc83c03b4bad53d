package storetest

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/caravanserai/cara/store"
)

// ranked wraps a store so that revisions count its transactions from 1, since real revisions may have gaps. It is not safe
// for concurrent use.
type ranked struct {
	store.Store
	base      int64   // the store's revision before the test
	revisions []int64 // of the transactions that changed something, ascending
}

// rank counts the transactions up to a real revision.
func (r *ranked) rank(revision int64) int64 {
	n, found := slices.BinarySearch(r.revisions, revision)
	if found {
		n++
	}
	return int64(n)
}

// real returns the revision of a rank. A future rank gets a revision that the store has not reached.
func (r *ranked) real(rank int64) int64 {
	switch {
	case rank < 0:
		return rank
	case rank == 0:
		return r.base
	case int(rank) <= len(r.revisions):
		return r.revisions[rank-1]
	default:
		return r.base + 1<<40
	}
}

func (r *ranked) rankKV(kv store.KV) store.KV {
	kv.Created, kv.Modified = r.rank(kv.Created), r.rank(kv.Modified)
	return kv
}

func (r *ranked) Get(ctx context.Context, key string) (store.KV, error) {
	kv, err := r.Store.Get(ctx, key)
	return r.rankKV(kv), err
}

func (r *ranked) List(ctx context.Context, prefix string, o store.ListOptions) (store.Page, error) {
	page, err := r.Store.List(ctx, prefix, o)
	for i, kv := range page.KVs {
		page.KVs[i] = r.rankKV(kv)
	}
	page.Revision = r.rank(page.Revision)
	return page, err
}

func (r *ranked) Commit(ctx context.Context, t store.Txn) (int64, error) {
	conditions := slices.Clone(t.If)
	for i, c := range conditions {
		if c.Modified > 0 {
			conditions[i].Modified = r.real(c.Modified)
		}
	}
	changes := slices.ContainsFunc(t.Do, func(op store.Op) bool {
		_, err := r.Store.Get(ctx, op.Key)
		return !op.Delete || err == nil
	})
	rev, err := r.Store.Commit(ctx, store.Txn{If: conditions, Do: t.Do})
	var conflict *store.ConflictError
	switch {
	case errors.As(err, &conflict):
		want := conflict.Want
		if i := slices.Index(conditions, store.Condition{Key: conflict.Key, Modified: conflict.Want}); i >= 0 {
			want = t.If[i].Modified
		}
		return 0, &store.ConflictError{Key: conflict.Key, Want: want, Have: r.rank(conflict.Have)}
	case err != nil:
		return 0, err
	case changes:
		r.revisions = append(r.revisions, rev)
	}
	return r.rank(rev), nil
}

func (r *ranked) Watch(ctx context.Context, after int64) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for c, err := range r.Store.Watch(ctx, r.real(after)) {
			c.Revision = r.rank(c.Revision)
			c.Events = slices.Clone(c.Events) // other watches have them too
			for i := range c.Events {
				c.Events[i].KV = r.rankKV(c.Events[i].KV)
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

func (r *ranked) Compact(ctx context.Context, revision int64) error {
	return r.Store.Compact(ctx, r.real(revision))
}

// WithHoles returns a store with gaps in its revisions: each Commit takes three, and the first two have no visible effect.
func WithHoles(inner store.Store) store.Store { return holes{inner} }

const holeKey = "hole"

type holes struct{ store.Store }

func (h holes) Commit(ctx context.Context, t store.Txn) (int64, error) {
	for _, op := range []store.Op{put(holeKey, ""), del(holeKey)} {
		if _, err := h.Store.Commit(ctx, store.Txn{Do: []store.Op{op}}); err != nil {
			return 0, err
		}
	}
	return h.Store.Commit(ctx, t)
}

func (h holes) Watch(ctx context.Context, after int64) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for c, err := range h.Store.Watch(ctx, after) {
			if len(c.Events) == 1 && c.Events[0].KV.Key == holeKey {
				continue
			}
			c.More = false // a hole may be next
			if !yield(c, err) {
				return
			}
		}
	}
}
