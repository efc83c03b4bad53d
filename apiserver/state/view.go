package state

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// View is every object at one revision, with the indexes over them. A published view never changes, so it is read
// without a lock, and whoever holds one sees the same objects however often he looks. It shares what a transaction did
// not touch with the view before it.
type View struct {
	Rev    int64
	tables map[string]*Table // by kind
	index  *index
}

// Reader is where objects are read: the cache, which is at its newest view at every look, or one view.
type Reader interface{ View() *View }

// View makes a view a Reader of itself.
func (v *View) View() *View { return v }

func newView() *View {
	v := &View{tables: make(map[string]*Table, len(kinds)), index: newIndex()}
	for i := range kinds {
		v.tables[kinds[i].kind] = newTable()
	}
	return v
}

// with returns the view after tx, and the changes of tx completed with the state before. v stays as it is.
func (v *View) with(tx Transaction) (*View, Transaction) {
	if len(tx.Changes) == 0 {
		return &View{Rev: tx.Rev, tables: v.tables, index: v.index}, tx
	}
	next := &View{Rev: tx.Rev, tables: maps.Clone(v.tables), index: v.index.clone()}
	own := func(kind string) {
		if next.tables[kind] == v.tables[kind] {
			next.tables[kind] = v.tables[kind].clone()
		}
	}
	for i := range tx.Changes {
		own(tx.Changes[i].Kind)
	}
	if !v.unstaged() {
		own(api.KindClaim)
		tx.Changes = next.setStaged(tx.Changes, tx.Rev)
		return next, tx
	}
	for i := range tx.Changes {
		next.set(&tx.Changes[i], tx.Rev)
	}
	return next, tx
}

// set puts one change into its table and the indexes of a view that is not published yet.
func (v *View) set(ch *Change, rev int64) {
	t := v.tables[ch.Kind]
	ch.Old = t.message(ch.Name)
	if ch.New == nil {
		t.remove(ch.Name)
	} else {
		t.put(&Entry{Name: ch.Name, Msg: ch.New, Rev: rev})
	}
	v.index.update(ch)
	ch.Complete()
}

// Ascend visits the objects of a kind whose names begin with prefix and come after after, in the order of their names,
// until visit returns false.
func (v *View) Ascend(kind, prefix, after string, visit func(*Entry) bool) {
	v.tables[kind].ascend(prefix, after, visit)
}

// Kinds are the kinds that a view has objects of, those that are no kinds of the API, too.
func (v *View) Kinds() []string { return slices.Sorted(maps.Keys(v.tables)) }

// Entry returns one object, or nil.
func (v *View) Entry(kind, name string) *Entry { return v.tables[kind].get(name) }

// Snapshot returns every object of some kinds, kind by kind, in the order of their names.
func (v *View) Snapshot(kinds []string) []Change {
	var out []Change
	for _, kind := range kinds {
		v.tables[kind].ascend("", "", func(e *Entry) bool {
			out = append(out, Change{Kind: kind, Name: e.Name, New: e.Msg})
			return true
		})
	}
	return out
}

// Get returns one object, shared and immutable.
func Get[T proto.Message](r Reader, name string) (T, bool) {
	if e := r.View().Entry(KindOf[T](), name); e != nil {
		return e.Msg.(T), true
	}
	var zero T
	return zero, false
}

// List returns the objects of a kind whose names begin with prefix and come after after, in the order of their names,
// shared and immutable, and the revision they show.
func List[T proto.Message](r Reader, prefix, after string) ([]T, int64) {
	v := r.View()
	t := v.tables[KindOf[T]()]
	out := make([]T, 0, t.sizeHint(prefix, 0))
	t.ascend(prefix, after, func(e *Entry) bool {
		out = append(out, e.Msg.(T))
		return true
	})
	return out, v.Rev
}

// Page is one page of a list: the objects with names after token that match, at most limit of them (0: all), and the
// token for the next page.
func Page[T proto.Message](r Reader, prefix, token string, limit int32, match func(T) bool) ([]T, *carav1.ListMeta) {
	v := r.View()
	meta := &carav1.ListMeta{ResourceVersion: api.FormatRevision(v.Rev)}
	t := v.tables[KindOf[T]()]
	items := make([]T, 0, t.sizeHint(prefix, limit))
	last := ""
	t.ascend(prefix, token, func(e *Entry) bool {
		m := e.Msg.(T)
		if match != nil && !match(m) {
			return true
		}
		if limit > 0 && len(items) == int(limit) {
			meta.NextPageToken = last
			return false
		}
		items, last = append(items, m), e.Name
		return true
	})
	return items, meta
}
