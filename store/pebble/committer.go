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
	queueLen   = 256     // requests that wait while a group is synced
	groupOps   = 8192    // a group is full at this many operations
	groupBytes = 4 << 20 // or this many bytes; one transaction may exceed both
)

// request is a transaction, or, if txn is empty, a compaction of the log up to compact.
type request struct {
	txn     store.Txn
	compact int64
	done    chan outcome // buffered: the committer never blocks on a caller
}

type outcome struct {
	revision int64
	err      error
}

// committer is the only writer. The goroutine in run owns all its fields.
type committer struct {
	db        *pebbledb.DB
	views     *views
	retain    int64
	index     index
	revision  int64 // the newest assigned revision, durable or not
	compacted int64
	tail      *tail                // of the current group, then of the published view
	wedged    bool                 // Pebble panicked in a write, so it cannot be closed
	present   func() error         // fails if the data directory was replaced or deleted
	broken    <-chan error         // an error from elsewhere that stops the store
	mark      func(revision int64) // records the newest durable revision; runs before callers get their results
	writing   atomic.Int64         // start of the current sync in Unix nanoseconds; 0 if there is none
}

// run processes requests in groups until stop is closed or a group fails. It returns the reason.
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

// gather adds waiting requests to group, up to the limits of a group. When none is waiting, it yields once: callers that
// just got their results are about to send another request, and can then share this sync.
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

// commit decides every request of the group in order and makes their writes durable in one batch. Only then does it publish
// the view and send the results. Conflicts also wait for the sync, since what they conflict with is not true before it is
// durable.
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

// fill decides each request and writes the effects of the successful ones into batch.
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

// trim drops the log beyond the retention, in steps of a tenth of it.
func (c *committer) trim() {
	if c.revision-c.compacted > c.retain+c.retain/10 {
		c.compacted = c.revision - c.retain
	}
}

// counters are the revisions before a group.
type counters struct{ revision, compacted int64 }

// finish adds to batch what a group changes besides objects: the trimmed log and the counters.
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

// sync applies batch and waits until it is durable. It turns a panic of Pebble into an error; Pebble may then still hold its
// locks.
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
	if err := c.present(); err != nil { // the synced files may have been deleted
		return err
	}
	c.mark(c.revision)
	return batch.Close()
}

// publish makes everything that is durable visible to readers and watchers.
func (c *committer) publish() {
	c.views.publish(&view{
		snapshot:  c.db.NewSnapshot(),
		revision:  c.revision,
		compacted: c.compacted,
		tail:      c.tail,
		next:      make(chan struct{}),
	})
}
