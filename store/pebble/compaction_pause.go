package pebble

import (
	"sync/atomic"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
)

// pauseFor is the pause after a failed compaction. Without it, Pebble would retry the same compaction immediately and
// forever.
const pauseFor = 30 * time.Second

// compactionPause is a compaction scheduler that pauses after a failure.
type compactionPause struct {
	pebbledb.CompactionScheduler
	until atomic.Int64 // Unix nanoseconds
}

func (c *compactionPause) failed() { c.until.Store(time.Now().Add(pauseFor).UnixNano()) }

func (c *compactionPause) holds() bool { return time.Now().UnixNano() < c.until.Load() }

// Register wraps the database, because the wrapped scheduler also starts waiting compactions itself.
func (c *compactionPause) Register(goroutines int, db pebbledb.DBForCompaction) {
	c.CompactionScheduler.Register(goroutines, pausedDB{db, c})
}

// TrySchedule grants nothing during the pause after a failure.
func (c *compactionPause) TrySchedule() (bool, pebbledb.CompactionGrantHandle) {
	if c.holds() {
		return false, nil
	}
	return c.CompactionScheduler.TrySchedule()
}

type pausedDB struct {
	pebbledb.DBForCompaction
	compactionPause *compactionPause
}

func (d pausedDB) GetWaitingCompaction() (bool, pebbledb.WaitingCompaction) {
	if d.compactionPause.holds() {
		return false, pebbledb.WaitingCompaction{}
	}
	return d.DBForCompaction.GetWaitingCompaction()
}
