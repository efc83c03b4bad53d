package pebble

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/store"
)

// model is the store as a map and a list: the expected state of the real one. Revision r is changes[r-1].
type model struct {
	objects   map[string]store.KV
	changes   []store.Change
	compacted int64 // the highest revision that was asked to be compacted
}

func newModel() *model { return &model{objects: map[string]store.KV{}} }

func (m *model) revision() int64 { return int64(len(m.changes)) }

// commit implements the contract of Txn and returns what Commit must return.
func (m *model) commit(t store.Txn) (int64, error) {
	for _, c := range t.If {
		if have := m.objects[c.Key].Modified; have != c.Modified {
			return 0, &store.ConflictError{Key: c.Key, Want: c.Modified, Have: have}
		}
	}
	next := m.revision() + 1
	change := store.Change{Revision: next}
	for _, op := range t.Do {
		have, exists := m.objects[op.Key]
		switch {
		case op.Delete && !exists:
		case op.Delete:
			delete(m.objects, op.Key)
			change.Events = append(change.Events, store.Event{Delete: true, KV: store.KV{Key: op.Key, Created: have.Created, Modified: next}})
		default:
			now := store.KV{Key: op.Key, Value: op.Value, Created: next, Modified: next}
			if exists {
				now.Created = have.Created
			}
			m.objects[op.Key] = now
			change.Events = append(change.Events, store.Event{KV: now})
		}
	}
	if len(change.Events) > 0 {
		m.changes = append(m.changes, change)
	}
	return m.revision(), nil
}

// cut returns the model as it was at a revision.
func (m *model) cut(revision int64) *model {
	past := newModel()
	past.compacted = m.compacted
	past.changes = slices.Clone(m.changes[:revision])
	for _, c := range past.changes {
		for _, e := range c.Events {
			if e.Delete {
				delete(past.objects, e.KV.Key)
			} else {
				past.objects[e.KV.Key] = e.KV
			}
		}
	}
	return past
}

// check compares everything visible of s with the model: objects, revision, and the change log, which must have at least
// what retention promises.
func (m *model) check(t *testing.T, s *Store) {
	t.Helper()
	page, err := s.List(t.Context(), "", store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if page.Revision != m.revision() {
		t.Fatalf("store is at revision %d, the model at %d", page.Revision, m.revision())
	}
	want := slices.SortedFunc(maps.Values(m.objects), func(a, b store.KV) int { return strings.Compare(a.Key, b.Key) })
	if !reflect.DeepEqual(want, page.KVs) {
		t.Fatalf("objects at revision %d (-model +store):\n%s", page.Revision, cmp.Diff(want, page.KVs))
	}
	v, err := s.views.acquire()
	if err != nil {
		t.Fatal(err)
	}
	compacted := v.compacted
	s.views.release(v)
	if most := max(m.compacted, m.revision()-s.cfg.RetainRevisions, 0); compacted > most {
		t.Fatalf("the log begins after revision %d, retention allows at most %d", compacted, most)
	}
	m.checkLog(t, s, compacted)
}

func (m *model) checkLog(t *testing.T, s *Store, compacted int64) {
	t.Helper()
	if compacted < m.revision() {
		var got []store.Change
		for c, err := range s.Watch(t.Context(), compacted) {
			if err != nil {
				t.Fatal(err)
			}
			c.More = false
			if got = append(got, c); c.Revision >= m.revision() {
				break
			}
		}
		if want := m.changes[compacted:]; !reflect.DeepEqual(want, got) {
			t.Fatalf("change log after revision %d (-model +store):\n%s", compacted, cmp.Diff(want, got))
		}
	}
	if compacted > 0 {
		for _, err := range s.Watch(t.Context(), compacted-1) {
			if !errors.Is(err, store.ErrCompacted) {
				t.Fatalf("watch after %d with the log compacted to %d: %v, want ErrCompacted", compacted-1, compacted, err)
			}
		}
	}
}

// randomTxn uses only a few keys, so that transactions conflict. guess returns the Modified of a condition.
func randomTxn(rng *rand.Rand, guess func(key string) int64) store.Txn {
	key := func() string { return fmt.Sprintf("k/%d", rng.IntN(12)) }
	var t store.Txn
	for range rng.IntN(3) {
		k := key()
		t.If = append(t.If, store.Condition{Key: k, Modified: guess(k)})
	}
	used := map[string]bool{}
	for range 1 + rng.IntN(4) {
		op := store.Op{Key: key(), Delete: rng.IntN(3) == 0}
		if used[op.Key] {
			continue
		}
		used[op.Key] = true
		if !op.Delete {
			op.Value = make([]byte, rng.IntN(3000))
			for i := range op.Value {
				op.Value[i] = byte(rng.Uint32())
			}
		}
		t.Do = append(t.Do, op)
	}
	return t
}
