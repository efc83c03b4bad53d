package pebble

import (
	"sync/atomic"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
)

// calmFor is how long no compaction runs after one that failed: Pebble would run the same again at once, and for ever.
const calmFor = 30 * time.Second

// calm is a scheduler of compactions that holds them back for a while after a failure.
type calm struct {
	pebbledb.CompactionScheduler
	until atomic.Int64 // Unix nanoseconds
}

func (c *calm) failed() { c.until.Store(time.Now().Add(calmFor).UnixNano()) }

func (c *calm) holds() bool { return time.Now().UnixNano() < c.until.Load() }

// Register puts the brake between the scheduler and the database, whose waiting compactions it would run by itself.
func (c *calm) Register(goroutines int, db pebbledb.DBForCompaction) {
	c.CompactionScheduler.Register(goroutines, calmDB{db, c})
}

// TrySchedule grants nothing for a while after a failure.
func (c *calm) TrySchedule() (bool, pebbledb.CompactionGrantHandle) {
	if c.holds() {
		return false, nil
	}
	return c.CompactionScheduler.TrySchedule()
}

type calmDB struct {
	pebbledb.DBForCompaction
	calm *calm
}

func (d calmDB) GetWaitingCompaction() (bool, pebbledb.WaitingCompaction) {
	if d.calm.holds() {
		return false, pebbledb.WaitingCompaction{}
	}
	return d.DBForCompaction.GetWaitingCompaction()
}
