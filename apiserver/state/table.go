package state

import (
	"strings"

	"github.com/google/btree"
	"google.golang.org/protobuf/proto"
)

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
