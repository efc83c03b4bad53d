package apiserver

import (
	"maps"

	"google.golang.org/protobuf/proto"
)

// view is every object at one revision, with the indexes over them. A published view never changes, so it is read
// without a lock, and whoever holds one sees the same objects however often he looks. It shares what a transaction did
// not touch with the view before it.
type view struct {
	rev    int64
	tables map[string]*table // by kind
	index  *index
}

// reader is where objects are read: the cache, which is at its newest view at every look, or one view.
type reader interface{ view() *view }

func (v *view) view() *view { return v }

func newView() *view {
	v := &view{tables: make(map[string]*table, len(kinds)), index: newIndex()}
	for i := range kinds {
		v.tables[kinds[i].kind] = newTable()
	}
	return v
}

// with returns the view after tx, and completes the changes of tx with the state before. v stays as it is.
func (v *view) with(tx transaction) *view {
	if len(tx.changes) == 0 {
		return &view{rev: tx.rev, tables: v.tables, index: v.index}
	}
	next := &view{rev: tx.rev, tables: maps.Clone(v.tables), index: v.index.clone()}
	for i := range tx.changes {
		if kind := tx.changes[i].kind; next.tables[kind] == v.tables[kind] {
			next.tables[kind] = v.tables[kind].clone()
		}
		next.set(&tx.changes[i], tx.rev)
	}
	return next
}

// set puts one change into its table and the indexes of a view that is not published yet.
func (v *view) set(ch *change, rev int64) {
	t := v.tables[ch.kind]
	ch.old = t.message(ch.name)
	if ch.new == nil {
		t.remove(ch.name)
	} else {
		t.put(&entry{name: ch.name, msg: ch.new, rev: rev})
	}
	v.index.update(ch)
	ch.complete()
}

// entry returns one object, or nil.
func (v *view) entry(kind, name string) *entry { return v.tables[kind].get(name) }

// snapshot returns every object of some kinds, kind by kind, in the order of their names.
func (v *view) snapshot(kinds []string) []change {
	var out []change
	for _, kind := range kinds {
		v.tables[kind].ascend("", "", func(e *entry) bool {
			out = append(out, change{kind: kind, name: e.name, new: e.msg})
			return true
		})
	}
	return out
}

// lookup returns one object, shared and immutable.
func lookup[T proto.Message](r reader, name string) (T, bool) {
	if e := r.view().entry(kindOf[T](), name); e != nil {
		return e.msg.(T), true
	}
	var zero T
	return zero, false
}

// from returns the objects of a kind whose names begin with prefix and come after after, in the order of their names,
// shared and immutable, and the revision they show.
func from[T proto.Message](r reader, prefix, after string) ([]T, int64) {
	v := r.view()
	t := v.tables[kindOf[T]()]
	out := make([]T, 0, t.sizeHint(prefix, 0))
	t.ascend(prefix, after, func(e *entry) bool {
		out = append(out, e.msg.(T))
		return true
	})
	return out, v.rev
}
