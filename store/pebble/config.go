package pebble

import (
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

	// The on-disk format of Pebble itself is pinned, so that an update of the library alone never makes a data
	// directory unreadable for the version before it.
	pebbleFormat = pebbledb.FormatValueSeparation
)

// Config says where a store lives and how much it keeps. Everything but Dir has a working zero value.
type Config struct {
	// Dir is the data directory; it is made if it does not exist. One process at a time may have it open.
	Dir string
	// FS is the file system under Dir; nil is the disk.
	FS vfs.FS
	// Logger gets Pebble's own chatter at debug level and its troubles above; nil is silent.
	Logger *slog.Logger
	// RetainRevisions is how many of the newest revisions a watch can continue from; 0 is 100,000. The log may
	// hold a tenth more, since it is trimmed in coarse steps.
	RetainRevisions int64
	// CacheBytes bounds the block cache; 0 is 16 MiB.
	CacheBytes int64
	// MemTableBytes is how much is written before it is sorted to disk; 0 is 8 MiB. Memory grows to at most
	// three times as much under writes.
	MemTableBytes int64

	probeEvery time.Duration // of a full disk; 0 is 2 s
}

// Validate returns what is wrong with c, or nil.
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
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.RetainRevisions == 0 {
		c.RetainRevisions = defaultRetain
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = defaultCache
	}
	if c.MemTableBytes == 0 {
		c.MemTableBytes = defaultMemTable
	}
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
		MemTableStopWritesThreshold: 3, // a burst goes on while one memtable is flushed
		MaxOpenFiles:                256,
	}
	// The change log and the objects go to tables of their own. The log only grows at its end, so its tables sink
	// through the levels, and are dropped by trimming, without being written again with the objects.
	o.Experimental.SpanPolicyFunc = func(start []byte) (pebbledb.SpanPolicy, []byte, error) {
		if start[0] > logSpace {
			return pebbledb.SpanPolicy{}, nil, nil
		}
		return pebbledb.SpanPolicy{PreferFastCompression: true}, []byte{logSpace + 1}, nil
	}
	// Pebble's own scheduler looks ten times a second whether it may run more compactions, which is most of what an
	// idle server costs. Here it may always run one, and hears when that is done.
	o.CompactionConcurrencyRange = func() (lower, upper int) { return 1, 1 }
	o.Experimental.CompactionScheduler = brake
	if c.FS == vfs.Default {
		o.WithFSDefaults() // tells of a slow disk
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}
