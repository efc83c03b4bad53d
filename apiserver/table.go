package apiserver

import (
	"strings"

	"github.com/google/btree"
	"google.golang.org/protobuf/proto"
)

// table has the objects of one kind, by name and in the order of their names. Guarded by the cache's mutex.
type table struct {
	byName map[string]*entry
	sorted *btree.BTreeG[*entry]
}

func newTable() *table {
	return &table{
		byName: make(map[string]*entry),
		sorted: btree.NewG(32, func(a, b *entry) bool { return a.name < b.name }),
	}
}

func (t *table) put(e *entry) {
	t.byName[e.name] = e
	t.sorted.ReplaceOrInsert(e)
}

func (t *table) remove(name string) {
	if e := t.byName[name]; e != nil {
		delete(t.byName, name)
		t.sorted.Delete(e)
	}
}

func (t *table) message(name string) proto.Message {
	if e := t.byName[name]; e != nil {
		return e.msg
	}
	return nil
}

// sizeHint is how much room a listing needs at most, where that is known.
func (t *table) sizeHint(prefix string, limit int32) int {
	switch {
	case limit > 0:
		return min(int(limit), len(t.byName))
	case prefix == "":
		return len(t.byName)
	default:
		return 0
	}
}

// ascend visits the entries whose names begin with prefix and come after after, in order, until visit says false.
func (t *table) ascend(prefix, after string, visit func(*entry) bool) {
	start := max(prefix, after)
	t.sorted.AscendGreaterOrEqual(&entry{name: start}, func(e *entry) bool {
		if !strings.HasPrefix(e.name, prefix) {
			return false
		}
		if after != "" && e.name == after {
			return true
		}
		return visit(e)
	})
}
