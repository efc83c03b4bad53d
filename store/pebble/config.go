package pebble

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	defaultRetain   = 100_000
	defaultCache    = 16 << 20
	defaultMemTable = 8 << 20 // twice this stays resident after a burst
	maxMemTable     = 1 << 30

	// Pebble's own disk format is pinned, so that an update of the library alone never makes a data directory unreadable for
	// the previous version.
	pebbleFormat = pebbledb.FormatValueSeparation
)

// Config configures a Store. Only Dir is required.
type Config struct {
	// Dir is the data directory. Open creates it if needed. Only one process at a time may have it open.
	Dir string
	// FS is the file system of Dir. The default is the disk.
	FS vfs.FS
	// Logger gets Pebble's info lines at debug level, and its problems at higher levels. Nil discards them.
	Logger *slog.Logger
	// RetainRevisions is how many of the newest revisions a watch can resume from. The default is 100,000. The log may hold a
	// tenth more, since it is trimmed in coarse steps.
	RetainRevisions int64
	// CacheBytes is the size of the block cache. The default is 16 MiB.
	CacheBytes int64
	// MemTableBytes is how much is written to memory before it is flushed to disk. The default is 8 MiB. Under writes, memory
	// grows to at most three times this size.
	MemTableBytes int64

	probeEvery time.Duration // how often a full disk is probed; the default is 2 s
}

// Validate checks the configuration.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("store: no data directory given: set Dir")
	case c.RetainRevisions < 0:
		return fmt.Errorf("store: RetainRevisions is %d, it must be 0 (default) or more", c.RetainRevisions)
	case c.CacheBytes < 0:
		return fmt.Errorf("store: CacheBytes is %d, it must be 0 (default) or more", c.CacheBytes)
	case c.MemTableBytes < 0 || c.MemTableBytes > maxMemTable:
		return fmt.Errorf("store: MemTableBytes is %d, it must be 0 (default) to %d", c.MemTableBytes, maxMemTable)
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.FS == nil {
		c.FS = vfs.Default
	}
	c.RetainRevisions = cmp.Or(c.RetainRevisions, defaultRetain)
	c.CacheBytes = cmp.Or(c.CacheBytes, defaultCache)
	c.MemTableBytes = cmp.Or(c.MemTableBytes, defaultMemTable)
	return c
}

func (c Config) options(lock *pebbledb.Lock, h *health) *pebbledb.Options {
	brake := &compactionPause{CompactionScheduler: pebbledb.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()}
	o := &pebbledb.Options{
		FS:                          h.disk,
		Lock:                        lock,
		Logger:                      logger{h},
		EventListener:               listener(h, brake),
		FormatMajorVersion:          pebbleFormat,
		CacheSize:                   c.CacheBytes,
		MemTableSize:                uint64(c.MemTableBytes),
		MemTableStopWritesThreshold: 3, // writes continue while one memtable is flushed
		MaxOpenFiles:                256,
	}
	// The change log and the objects are kept in separate tables. The log only grows at its end, so its tables sink through the
	// levels and are dropped by trimming, and are not rewritten together with the objects.
	o.Experimental.SpanPolicyFunc = func(start []byte) (pebbledb.SpanPolicy, []byte, error) {
		if start[0] > logSpace {
			return pebbledb.SpanPolicy{}, nil, nil
		}
		return pebbledb.SpanPolicy{PreferFastCompression: true}, []byte{logSpace + 1}, nil
	}
	// Pebble's own scheduler checks ten times a second whether it may run more compactions, which is most of the CPU use of an
	// idle server. This scheduler always allows one, and is notified when it ends.
	o.CompactionConcurrencyRange = func() (lower, upper int) { return 1, 1 }
	o.Experimental.CompactionScheduler = brake
	if c.FS == vfs.Default {
		o.WithFSDefaults() // warns about a slow disk
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}
