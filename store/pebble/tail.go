package pebble

import (
	"bytes"
	"slices"

	"github.com/caravanserai/cara/store"
)

// tail is the end of the change log in memory: the changes of the last group. All watchers that were up to date before the
// group share it, so that a thousand watchers do not read the same entries from the database. A large group has no tail; its
// watchers read the log.
type tail struct {
	from    int64 // the changes after this revision, up to that of the view
	size    int
	changes []store.Change
}

// add adds a transaction. It copies the values, which belong to the caller of Commit. A tail is complete and immutable once
// its view is published.
func (l *tail) add(revision int64, effects []effect) {
	events := make([]store.Event, len(effects))
	for i, e := range effects {
		l.size += len(e.op.Key) + len(e.op.Value)
		if l.size > chunkBytes {
			l.changes = nil
			return
		}
		events[i] = e.event(revision)
	}
	l.changes = append(l.changes, store.Change{Revision: revision, Events: events})
}

// continues reports whether l has everything that follows revision at.
func (l *tail) continues(at int64) bool {
	return at == l.from && len(l.changes) > 0 && l.size <= chunkBytes
}

// copies returns copies of the changes, since a watcher's consumer owns the values.
func (l *tail) copies() []store.Change {
	out := make([]store.Change, len(l.changes))
	for i, c := range l.changes {
		out[i] = store.Change{Revision: c.Revision, Events: slices.Clone(c.Events)}
		for j := range c.Events {
			out[i].Events[j].KV.Value = bytes.Clone(c.Events[j].KV.Value)
		}
	}
	return out
}

func (e effect) event(revision int64) store.Event {
	kv := store.KV{Key: e.op.Key, Created: e.created, Modified: revision}
	if e.op.Delete {
		return store.Event{Delete: true, KV: kv}
	}
	kv.Value = append(make([]byte, 0, len(e.op.Value)), e.op.Value...)
	return store.Event{KV: kv}
}
