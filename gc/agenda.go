package gc

import (
	"cmp"

	"github.com/google/btree"
)

// Agenda has at most one action for each object, in the order of their time.
type Agenda struct {
	byTime *btree.BTreeG[Action]
	byKey  map[string]Action
}

// NewAgenda returns an empty agenda.
func NewAgenda() *Agenda {
	return &Agenda{
		byTime: btree.NewG(32, func(a, b Action) bool {
			return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.key(), b.key())) < 0
		}),
		byKey: map[string]Action{},
	}
}

// Set puts an action in the place of the one that the agenda has for the same object.
func (a *Agenda) Set(action Action) {
	a.Drop(action.key())
	a.byKey[action.key()] = action
	a.byTime.ReplaceOrInsert(action)
}

// Drop takes an object off the agenda.
func (a *Agenda) Drop(key string) {
	if old, ok := a.byKey[key]; ok {
		a.byTime.Delete(old)
		delete(a.byKey, key)
	}
}

// Len is how many objects are on the agenda.
func (a *Agenda) Len() int { return len(a.byKey) }

func (a *Agenda) first() (Action, bool) { return a.byTime.Min() }
