package pebble

import "github.com/caravanserai/cara/store"

// tail is the end of the change log in memory: the changes of the last group. All watchers that were up to date before the
// group share it, so that a thousand watchers do not read the same entries from the database. A large group has no tail; its
// watchers read the log.
type tail struct {
	from    int64 // the changes after this revision, up to that of the view
	size    int
	changes []store.Change
}

// add adds a transaction, with the values that Commit got. A tail is complete and immutable once its view is published.
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

func (e effect) event(revision int64) store.Event {
	kv := store.KV{Key: e.op.Key, Created: e.created, Modified: revision}
	if e.op.Delete {
		return store.Event{Delete: true, KV: kv}
	}
	if kv.Value = e.op.Value; kv.Value == nil {
		kv.Value = []byte{} // only a deletion has no value
	}
	return store.Event{KV: kv}
}
