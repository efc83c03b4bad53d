package volume

import (
	"sync"
	"time"
)

// Cache holds the content hashes of a volume's files between two walks.
//
// A hash is reused for a file with the same inode, size, modification time and change time. That alone would miss two kinds
// of writes: one within the same tick of the clock that gives the times, and one through a memory mapping to a page that
// was dirty already, which changes no time. So a walk first writes all dirty pages of the file system to disk, after which
// the next write to any of them changes the times; and it keeps no hash of a file that changed just before that.
type Cache struct {
	mu   sync.Mutex
	sums map[inode]hashed
}

// inode identifies a file on the machine.
type inode struct{ device, number uint64 }

// hashed is the hash of a file, and what identifies its content.
type hashed struct {
	state
	sum [sumSize]byte
}

// state is what changes whenever a file's content does. Times are in nanoseconds.
type state struct{ size, modified, changed int64 }

const (
	// maxCached is the maximum number of hashes in a cache, about 100 MB. Further files are hashed at each walk.
	maxCached = 1 << 20
	// racy is how long before a walk a file must have changed for the last time, so that its hash is kept.
	racy = 2 * time.Second
)

// get returns the hash of a file, if it has not changed.
func (c *Cache) get(of inode, s state) (sum [sumSize]byte, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.sums[of]
	return h.sum, ok && h.state == s
}

// replace replaces all hashes by those of a complete walk.
func (c *Cache) replace(sums map[inode]hashed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sums = sums
}

// keepable reports whether the hash of a file in this state may be kept, if the walk's sync began at this time.
func keepable(s state, synced time.Time) bool {
	limit := synced.Add(-racy).UnixNano()
	return s.changed < limit && s.modified < limit
}
