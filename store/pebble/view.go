package pebble

import (
	"log/slog"
	"sync"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/caravanserai/cara/store"
)

// view is the store at one durable revision. Its snapshot may be read between acquire and release.
type view struct {
	snapshot            *pebbledb.Snapshot
	revision, compacted int64
	tail                *tail
	next                chan struct{} // closed when a newer view is published

	refs int // guarded by views.mu; the current view has one reference from views
}

// views provides the current view. It counts the readers, so that the database is closed after the last one.
type views struct {
	log *slog.Logger

	mu      sync.Mutex
	current *view // nil once closed
	readers sync.WaitGroup
}

// acquire returns the current view, which the caller must release, or store.ErrClosed.
func (vs *views) acquire() (*view, error) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if vs.current == nil {
		return nil, store.ErrClosed
	}
	vs.current.refs++
	vs.readers.Add(1)
	return vs.current, nil
}

func (vs *views) release(v *view) {
	vs.drop(v)
	vs.readers.Done()
}

// publish makes v the current view and wakes every watcher that waits on the previous one.
func (vs *views) publish(v *view) {
	v.refs = 1
	vs.mu.Lock()
	old := vs.current
	vs.current = v
	vs.mu.Unlock()
	if old != nil {
		close(old.next)
		vs.drop(old)
	}
}

// close drops the current view and waits until no reader holds a view.
func (vs *views) close() {
	vs.mu.Lock()
	old := vs.current
	vs.current = nil
	vs.mu.Unlock()
	if old != nil {
		close(old.next)
		vs.drop(old)
	}
	vs.readers.Wait()
}

func (vs *views) drop(v *view) {
	vs.mu.Lock()
	v.refs--
	last := v.refs == 0
	vs.mu.Unlock()
	if !last {
		return
	}
	if err := v.snapshot.Close(); err != nil {
		vs.log.Error("store cannot close a snapshot", "rev", v.revision, "error", err)
	}
}
