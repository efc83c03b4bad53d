package state

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/google/btree"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// View holds every object at one revision, with indexes. A published view never changes, so it is read without a lock, and
// all reads from one view are consistent. It shares unchanged objects with the previous view.
type View struct {
	Rev int64
	// Changed is the revision of the last transaction that changed an object. Followers hear about no later one.
	Changed int64

	tables map[string]*Table // by kind
	index  *index
}

// Reader is a source of objects: the cache, which always returns its newest view, or one view.
type Reader interface{ View() *View }

// View returns v, so that a view is a Reader.
func (v *View) View() *View { return v }

func newView() *View {
	v := &View{tables: make(map[string]*Table, len(kinds)), index: newIndex()}
	for i := range kinds {
		v.tables[kinds[i].kind] = newTable()
	}
	return v
}

// with returns the view after some transactions, whose old states it fills in. v does not change.
func (v *View) with(txs []Transaction) *View {
	next := &View{Rev: v.Rev, Changed: v.Changed, tables: maps.Clone(v.tables), index: v.index.clone()}
	own := func(kind string) { // transactions that are applied together share one copy
		if next.tables[kind] == v.tables[kind] {
			next.tables[kind] = v.tables[kind].clone()
		}
	}
	for n := range txs {
		tx := &txs[n]
		if next.Rev = tx.Rev; len(tx.Changes) == 0 {
			continue
		}
		next.Changed = tx.Rev
		for i := range tx.Changes {
			own(tx.Changes[i].Kind)
		}
		if !next.unstaged() {
			own(api.KindClaim)
			tx.Changes = next.setStaged(tx.Changes, tx.Rev)
			continue
		}
		for i := range tx.Changes {
			next.set(&tx.Changes[i], tx.Rev)
		}
	}
	return next
}

// set applies one change to the table and the indexes of an unpublished view.
func (v *View) set(ch *Change, rev int64) {
	t := v.tables[ch.Kind]
	ch.Old = t.message(ch.Name)
	if ch.New == nil {
		t.remove(ch.Name)
	} else {
		t.put(newEntry(ch, rev))
	}
	v.index.update(ch)
	ch.Complete()
}

// Ascend visits the objects of a kind whose names begin with prefix and sort after the name after, in order, until visit
// returns false.
func (v *View) Ascend(kind, prefix, after string, visit func(*Entry) bool) {
	v.tables[kind].ascend(prefix, after, visit)
}

// Kinds returns the kinds of objects in a view, including those that are not kinds of the API.
func (v *View) Kinds() []string { return slices.Sorted(maps.Keys(v.tables)) }

// Entry returns one object, or nil.
func (v *View) Entry(kind, name string) *Entry { return v.tables[kind].get(name) }

// Get returns one object, shared and immutable.
func Get[T proto.Message](r Reader, name string) (T, bool) {
	if e := r.View().Entry(KindOf[T](), name); e != nil {
		return e.Message().(T), true
	}
	var zero T
	return zero, false
}

// List returns the objects of a kind whose names begin with prefix, sorted by name, shared and immutable.
func List[T proto.Message](r Reader, prefix string) []T {
	t := r.View().tables[KindOf[T]()]
	out := make([]T, 0, t.sizeHint(prefix, 0))
	t.ascend(prefix, "", func(e *Entry) bool {
		out = append(out, e.Message().(T))
		return true
	})
	return out
}

// Page returns one page of a list: at most limit objects (0: all) with names after token that match, and the token for the
// next page.
func Page[T proto.Message](r Reader, prefix, token string, limit int32, match func(T) bool) ([]T, *carav1.ListMeta) {
	v := r.View()
	t := v.tables[KindOf[T]()]
	return page(v, t.sizeHint(prefix, limit), limit, match, func(visit func(*Entry) bool) { t.ascend(prefix, token, visit) })
}

// PageBack is Page from the last name to the first: the token is the name before which the page begins.
func PageBack[T proto.Message](r Reader, prefix, token string, limit int32, match func(T) bool) ([]T, *carav1.ListMeta) {
	v := r.View()
	t := v.tables[KindOf[T]()]
	return page(v, t.sizeHint(prefix, limit), limit, match, func(visit func(*Entry) bool) { t.descend(prefix, token, visit) })
}

// PageOf is Page for the objects with some names, in the order of these names.
func PageOf[T proto.Message](v *View, names []string, limit int32, match func(T) bool) ([]T, *carav1.ListMeta) {
	t := v.tables[KindOf[T]()]
	return page(v, len(names), limit, match, func(visit func(*Entry) bool) {
		for _, name := range names {
			if e := t.get(name); e != nil && !visit(e) {
				return
			}
		}
	})
}

func page[T proto.Message](v *View, size int, limit int32, match func(T) bool, entries iter.Seq[*Entry]) ([]T, *carav1.ListMeta) {
	meta := &carav1.ListMeta{ResourceVersion: api.FormatRevision(v.Rev)}
	items := make([]T, 0, size)
	last := ""
	for e := range entries {
		m := e.Message().(T)
		if match != nil && !match(m) {
			continue
		}
		if limit > 0 && len(items) == int(limit) {
			meta.NextPageToken = last
			break
		}
		items, last = append(items, m), e.Name
	}
	return items, meta
}

// degree is the degree of the B-trees in a view. A change copies the nodes from the root to its object, so smaller nodes
// make changes cheaper and larger nodes make lists cheaper.
const degree = 16

// Table holds the objects of one kind, sorted by name.
type Table struct{ sorted *btree.BTreeG[row] }

// row is an entry with its name, so that a lookup allocates nothing.
type row struct {
	name string
	*Entry
}

func newTable() *Table {
	return &Table{btree.NewG(degree, func(a, b row) bool { return a.name < b.name })}
}

// clone returns a copy that can be changed while others read t. Only one goroutine clones and changes tables.
func (t *Table) clone() *Table { return &Table{t.sorted.Clone()} }

func (t *Table) put(e *Entry) { t.sorted.ReplaceOrInsert(row{e.Name, e}) }

func (t *Table) remove(name string) { t.sorted.Delete(row{name: name}) }

// get returns an entry, or nil.
func (t *Table) get(name string) *Entry {
	r, _ := t.sorted.Get(row{name: name})
	return r.Entry
}

func (t *Table) message(name string) proto.Message {
	if e := t.get(name); e != nil {
		return e.Message()
	}
	return nil
}

// sizeHint returns an upper bound for the length of a list, or zero if it is unknown.
func (t *Table) sizeHint(prefix string, limit int32) int {
	switch {
	case limit > 0:
		return min(int(limit), t.sorted.Len())
	case prefix == "":
		return t.sorted.Len()
	default:
		return 0
	}
}

// ascend visits the entries whose names begin with prefix and sort after the name after, in order, until visit returns
// false.
func (t *Table) ascend(prefix, after string, visit func(*Entry) bool) {
	start := max(prefix, after)
	t.sorted.AscendGreaterOrEqual(row{name: start}, func(r row) bool {
		if !strings.HasPrefix(r.name, prefix) {
			return false
		}
		if after != "" && r.name == after {
			return true
		}
		return visit(r.Entry)
	})
}

// descend visits the entries whose names begin with prefix and sort before the name before (empty: all), from the last to the
// first, until visit returns false.
func (t *Table) descend(prefix, before string, visit func(*Entry) bool) {
	each := func(r row) bool {
		switch {
		case before != "" && r.name >= before:
			return true
		case !strings.HasPrefix(r.name, prefix):
			return r.name > prefix // names after those with the prefix come first
		}
		return visit(r.Entry)
	}
	if before != "" {
		t.sorted.DescendLessOrEqual(row{name: before}, each)
		return
	}
	t.sorted.Descend(each)
}
