package pebble

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/caravanserai/cara/store"
)

const (
	queueLen   = 256     // requests that wait while a group is being synced
	groupOps   = 8192    // a group takes no more transactions once it has as many operations
	groupBytes = 4 << 20 // or as many bytes; a single transaction may have more
)

// request is a transaction, or, without one, a compaction of the log up to compact.
type request struct {
	txn     store.Txn
	compact int64
	done    chan outcome // buffered: the committer never waits for a caller
}

type outcome struct {
	revision int64
	err      error
}

// committer is the single writer. All its fields belong to the goroutine in run.
type committer struct {
	db        *pebbledb.DB
	views     *views
	retain    int64
	index     index
	revision  int64 // the newest one given, durable or not
	compacted int64
	tail      *tail                // of the group in the making, then of the published view
	wedged    bool                 // Pebble panicked in a write: it cannot be closed
	present   func() error         // says that the directory is still the one that was opened
	broken    <-chan error         // an error found elsewhere, which ends the store
	mark      func(revision int64) // notes the newest revision that is durable, before anybody is answered
	writing   atomic.Int64         // when the sync that runs began, in Unix nanoseconds; 0: none runs
}

// run serves requests in groups until stop is closed, or until a group fails: then it returns why.
func (c *committer) run(requests <-chan *request, stop <-chan struct{}) error {
	var group []*request
	for {
		select {
		case <-stop:
			return store.ErrClosed
		case err := <-c.broken:
			return err
		case first := <-requests:
			group = gather(append(group[:0], first), requests)
		}
		err := c.commit(group)
		clear(group)
		if err != nil {
			return err
		}
	}
}

// gather adds to group what waits, up to the bounds of a group. When nothing more waits it lets others run once: those
// who were just answered are about to ask again, and should share this sync instead of waiting for the next.
func gather(group []*request, requests <-chan *request) []*request {
	ops, size := len(group[0].txn.Do), group[0].txn.Size()
	yielded := false
	for ops < groupOps && size < groupBytes {
		select {
		case r := <-requests:
			group = append(group, r)
			ops += len(r.txn.Do) + 1
			size += r.txn.Size()
			yielded = false
		default:
			if yielded {
				return group
			}
			yielded = true
			runtime.Gosched()
		}
	}
	return group
}

// commit decides every request of the group in order, makes what they write durable in one batch, and only then
// publishes and answers: also the refusals, since what they conflict with is not true before it is durable.
func (c *committer) commit(group []*request) error {
	batch := c.db.NewBatch()
	outcomes := make([]outcome, len(group))
	before := counters{c.revision, c.compacted}
	c.tail = &tail{from: c.revision}
	err := c.fill(batch, group, outcomes)
	if err == nil {
		err = c.finish(batch, before)
	}
	switch {
	case err != nil:
	case batch.Empty():
		err = batch.Close()
	default:
		if err = c.sync(batch); err == nil {
			c.publish()
		}
	}
	if err != nil {
		err = fmt.Errorf("write revisions %d to %d: %w", before.revision+1, c.revision, err)
	}
	for i, r := range group {
		if err != nil {
			outcomes[i] = outcome{err: fmt.Errorf("%w; whether this transaction is stored shows after a restart", err)}
		}
		r.done <- outcomes[i]
	}
	return err
}

// fill decides each request and writes the effects of those that hold into batch.
func (c *committer) fill(batch *pebbledb.Batch, group []*request, outcomes []outcome) error {
	for i, r := range group {
		if len(r.txn.Do) == 0 {
			outcomes[i].err = c.compactTo(r.compact)
			continue
		}
		if err := c.index.check(r.txn.If); err != nil {
			outcomes[i].err = err
			continue
		}
		if effects := c.index.apply(r.txn.Do, c.revision+1); len(effects) > 0 {
			c.revision++
			c.tail.add(c.revision, effects)
			if err := write(batch, c.revision, effects); err != nil {
				return err
			}
		}
		outcomes[i].revision = c.revision
	}
	return nil
}

func (c *committer) compactTo(revision int64) error {
	if revision > c.revision {
		return fmt.Errorf("%w: compact to revision %d: the store is at %d", store.ErrInvalid, revision, c.revision)
	}
	c.compacted = max(c.compacted, revision)
	return nil
}

// trim forgets what is beyond the retention, in steps of a tenth of it.
func (c *committer) trim() {
	if c.revision-c.compacted > c.retain+c.retain/10 {
		c.compacted = c.revision - c.retain
	}
}

// counters are the revisions that a group starts from.
type counters struct{ revision, compacted int64 }

// finish adds to batch what a group changes besides its objects: the trimmed log and the counters.
func (c *committer) finish(batch *pebbledb.Batch, before counters) error {
	c.trim()
	if c.compacted > before.compacted {
		if err := batch.DeleteRange(logStart(before.compacted+1), logStart(c.compacted+1), nil); err != nil {
			return err
		}
		if err := batch.Set(metaKey(metaCompacted), encodeCounter(c.compacted), nil); err != nil {
			return err
		}
	}
	if c.revision > before.revision {
		return batch.Set(metaKey(metaRevision), encodeCounter(c.revision), nil)
	}
	return nil
}

// sync applies batch and waits until it is durable. Pebble panics where it cannot go on; that is a failure like any
// other here, save that its locks may still be held then.
func (c *committer) sync(batch *pebbledb.Batch) (err error) {
	defer func() {
		if r := recover(); r != nil {
			c.wedged = true
			err = fmt.Errorf("pebble gave up: %v", r)
		}
	}()
	c.writing.Store(time.Now().UnixNano())
	defer c.writing.Store(0)
	if err := c.db.ApplyNoSyncWait(batch, pebbledb.Sync); err != nil {
		return err
	}
	if err := batch.SyncWait(); err != nil {
		return err
	}
	if err := c.present(); err != nil { // the synced files were deleted
		return err
	}
	c.mark(c.revision)
	return batch.Close()
}

// publish shows readers and watchers everything that is durable now.
func (c *committer) publish() {
	c.views.publish(&view{
		snapshot:  c.db.NewSnapshot(),
		revision:  c.revision,
		compacted: c.compacted,
		tail:      c.tail,
		next:      make(chan struct{}),
	})
}
