package pebble

import (
	"log/slog"
	"sync"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/caravanserai/cara/store"
)

// view is the store at one durable revision. Its snapshot may be read from acquire to release.
type view struct {
	snapshot            *pebbledb.Snapshot
	revision, compacted int64
	tail                *tail
	next                chan struct{} // closed when a newer view has been published

	refs int // guarded by views.mu; the current view holds one for itself
}

// views hands out the current view. readers counts what is acquired, so that the database is closed after the last.
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

// release gives v back.
func (vs *views) release(v *view) {
	vs.drop(v)
	vs.readers.Done()
}

// publish makes v the current view and wakes every watcher that waits on the one before.
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

// close takes the current view away and waits until no reader holds one.
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
