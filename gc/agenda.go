package gc

import (
	"cmp"

	"github.com/google/btree"
)

// Agenda holds at most one action for each key, ordered by time.
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

// Set replaces the action for the same key.
func (a *Agenda) Set(action Action) {
	a.Drop(action.key())
	a.byKey[action.key()] = action
	a.byTime.ReplaceOrInsert(action)
}

// Drop removes the action for a key.
func (a *Agenda) Drop(key string) {
	if old, ok := a.byKey[key]; ok {
		a.byTime.Delete(old)
		delete(a.byKey, key)
	}
}

// Len returns the number of actions.
func (a *Agenda) Len() int { return len(a.byKey) }

func (a *Agenda) first() (Action, bool) { return a.byTime.Min() }
