package pebble

import (
	"context"
	"errors"
	"fmt"
	"iter"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/caravanserai/cara/store"
)

// A chunk of the log ends with the transaction that reaches one of these limits, so that a watcher far behind neither fills
// the memory nor holds a view for long.
const (
	chunkEntries = 4096
	chunkBytes   = 1 << 20
)

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, from int64) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		w := watcher{views: s.views, at: from}
		if err := w.run(ctx, func(c store.Change) bool { return yield(c, nil) }); err != nil {
			yield(store.Change{}, fmt.Errorf("watch after revision %d: %w", w.at, err))
		}
	}
}

type watcher struct {
	views *views
	at    int64 // the last revision that was read
}

// run returns nil when tell returns false.
func (w *watcher) run(ctx context.Context, tell func(store.Change) bool) error {
	if w.at < 0 {
		return fmt.Errorf("%w: negative revision", store.ErrInvalid)
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		changes, wake, err := w.read(ctx)
		if err != nil {
			return err
		}
		for i, c := range changes {
			c.More = i < len(changes)-1
			if !tell(c) {
				return nil
			}
		}
		if wake == nil {
			continue
		}
		select {
		case <-wake:
		case <-ctx.Done():
		}
	}
}

// read returns the next chunk of changes. At the newest revision it returns a channel to wait on instead.
func (w *watcher) read(ctx context.Context) ([]store.Change, <-chan struct{}, error) {
	v, err := w.views.acquire()
	if err != nil {
		return nil, nil, err
	}
	defer w.views.release(v)
	if w.at < v.compacted || w.at > v.revision {
		return nil, nil, fmt.Errorf("%w: it has revisions %d to %d", store.ErrCompacted, v.compacted+1, v.revision)
	}
	if w.at == v.revision {
		return nil, v.next, nil
	}
	if v.tail.continues(w.at) {
		w.at = v.revision
		return v.tail.changes, v.next, nil
	}
	c, err := readLog(ctx, v, w.at)
	if err != nil {
		return nil, nil, err
	}
	w.at = c.reached
	if w.at < v.revision {
		return c.changes, nil, nil
	}
	return c.changes, v.next, nil
}

// chunk is a part of the log: its changes, and the revision up to which it was read.
type chunk struct {
	changes        []store.Change
	reached        int64
	entries, bytes int
}

func (c *chunk) full() bool { return c.entries >= chunkEntries || c.bytes >= chunkBytes }

// readLog reads whole transactions after from, until the chunk is full or the view ends.
func readLog(ctx context.Context, v *view, from int64) (chunk, error) {
	it, err := v.snapshot.NewIterWithContext(ctx, &pebbledb.IterOptions{
		LowerBound: logStart(from + 1),
		UpperBound: logStart(v.revision + 1),
	})
	if err != nil {
		return chunk{}, err
	}
	c := chunk{reached: from}
	for it.First(); it.Valid(); it.Next() {
		done, err := c.add(it)
		if err != nil {
			return chunk{}, errors.Join(err, it.Close())
		}
		if done {
			return c, it.Close()
		}
	}
	if err := it.Close(); err != nil {
		return chunk{}, err
	}
	if c.reached != v.revision {
		return chunk{}, hole(c.reached)
	}
	return c, nil
}

// add adds the iterator's entry. It returns done instead if the entry belongs to another transaction and the chunk is full.
func (c *chunk) add(it *pebbledb.Iterator) (done bool, err error) {
	revision, key, err := decodeLogKey(it.Key())
	if err != nil {
		return false, err
	}
	if revision != c.reached {
		if c.full() {
			return true, nil
		}
		if revision != c.reached+1 {
			return false, hole(c.reached)
		}
		c.reached = revision
	}
	c.entries++
	value, err := it.ValueAndErr()
	if err != nil {
		return false, err
	}
	event, err := decodeEvent(revision, key, value)
	if err != nil {
		return false, err
	}
	c.bytes += len(value)
	if n := len(c.changes); n > 0 && c.changes[n-1].Revision == revision {
		c.changes[n-1].Events = append(c.changes[n-1].Events, event)
	} else {
		c.changes = append(c.changes, store.Change{Revision: revision, Events: []store.Event{event}})
	}
	return false, nil
}

func hole(revision int64) error {
	return fmt.Errorf("the change log is corrupt: revision %d is missing: restore the data directory from a backup", revision+1)
}
