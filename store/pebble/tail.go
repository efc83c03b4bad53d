package pebble

import (
	"bytes"
	"slices"

	"github.com/caravanserai/cara/store"
)

// tail is the end of the change log in memory: what the last group has changed, shared by all watchers that were up
// to date before it, so that a thousand of them don't each read the same entries from the database. A large group has
// no tail; its watchers read the log.
type tail struct {
	from    int64 // the changes are all those after this revision, up to that of the view
	size    int
	changes []store.Change
}

// add keeps a transaction, with copies of its values, which belong to the caller of Commit. It never changes what it
// has handed out: a tail is complete before its view is published.
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

// continues reports whether a watcher that has read up to at finds all that comes next in l.
func (l *tail) continues(at int64) bool {
	return at == l.from && len(l.changes) > 0 && l.size <= chunkBytes
}

// copies returns copies of the changes.
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
