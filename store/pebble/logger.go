package pebble

import (
	"fmt"

	pebbledb "github.com/cockroachdb/pebble/v2"
)

// logger forwards Pebble's log lines to slog.
type logger struct{ to *health }

func (l logger) Infof(format string, args ...any) {
	l.to.log.Debug("pebble", "detail", fmt.Sprintf(format, args...))
}

func (l logger) Errorf(format string, args ...any) {
	l.to.say(l.to.log.Error, format, "pebble reports an error", "detail", fmt.Sprintf(format, args...))
}

// Fatalf must not return: Pebble calls it when it cannot continue. In the committer the panic is caught and stops the store.
// In Pebble's own goroutines it ends the process, as Pebble itself would.
func (l logger) Fatalf(format string, args ...any) {
	detail := fmt.Sprintf(format, args...)
	l.to.log.Error("pebble cannot go on: the server ends; look at the disk, then start it again", "detail", detail)
	panic("pebble: " + detail)
}

// listener reports failures to health. Successful flushes and compactions are not logged.
func listener(h *health, brake *compactionPause) *pebbledb.EventListener {
	return &pebbledb.EventListener{
		BackgroundError: h.background,
		DataCorruption:  func(info pebbledb.DataCorruptionInfo) { h.corrupt(info.Path, info.Details) },
		CompactionEnd: func(info pebbledb.CompactionInfo) {
			if info.Err != nil {
				brake.failed()
			}
			h.compacted(info.Err)
		},
		FlushEnd: func(info pebbledb.FlushInfo) {
			if info.Err == nil {
				h.trouble(causeBackground, nil)
			}
		},
		DiskSlow: func(info pebbledb.DiskSlowInfo) {
			h.say(h.log.Warn, "slow", "disk is slow", "path", info.Path, "op", info.OpType.String(), "duration", info.Duration)
		},
		LowDiskSpace: func(info pebbledb.LowDiskSpaceInfo) {
			h.say(h.log.Warn, "low", "disk is nearly full", "available_bytes", info.AvailBytes, "total_bytes", info.TotalBytes)
		},
		WriteStallBegin: func(info pebbledb.WriteStallBeginInfo) {
			h.say(h.log.Warn, "stall", "store holds writes back until the disk catches up", "reason", info.Reason)
		},
		WriteStallEnd: func() { h.say(h.log.Info, "stall end", "store accepts writes again") },
	}
}
