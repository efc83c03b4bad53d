package pebble

import (
	"sync/atomic"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
)

// pauseFor is how long no compaction runs after one that failed: Pebble would run the same again at once, and for ever.
const pauseFor = 30 * time.Second

// compactionPause is a scheduler of compactions that holds them back for a while after a failure.
type compactionPause struct {
	pebbledb.CompactionScheduler
	until atomic.Int64 // Unix nanoseconds
}

func (c *compactionPause) failed() { c.until.Store(time.Now().Add(pauseFor).UnixNano()) }

func (c *compactionPause) holds() bool { return time.Now().UnixNano() < c.until.Load() }

// Register puts the brake between the scheduler and the database, whose waiting compactions it would run by itself.
func (c *compactionPause) Register(goroutines int, db pebbledb.DBForCompaction) {
	c.CompactionScheduler.Register(goroutines, pausedDB{db, c})
}

// TrySchedule grants nothing for a while after a failure.
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
