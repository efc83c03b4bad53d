package pebble

import (
	"fmt"
	"log/slog"

	pebbledb "github.com/cockroachdb/pebble/v2"
)

// logger passes Pebble's lines to slog.
type logger struct{ to *slog.Logger }

func (l logger) Infof(format string, args ...any) {
	l.to.Debug("pebble", "detail", fmt.Sprintf(format, args...))
}

func (l logger) Errorf(format string, args ...any) {
	l.to.Error("pebble reports an error", "detail", fmt.Sprintf(format, args...))
}

// Fatalf must not return: Pebble calls it where it cannot go on. In the committer the panic is caught and stops the
// store; in Pebble's own goroutines it ends the process, as Pebble would by itself.
func (l logger) Fatalf(format string, args ...any) {
	detail := fmt.Sprintf(format, args...)
	l.to.Error("pebble cannot go on", "detail", detail)
	panic("pebble: " + detail)
}

// listener keeps what an operator should hear of. Flushes and compactions are Pebble's own business.
func listener(log *slog.Logger) *pebbledb.EventListener {
	return &pebbledb.EventListener{
		BackgroundError: func(err error) {
			log.Error("store cannot write in the background, it tries again", "error", err)
		},
		DataCorruption: func(info pebbledb.DataCorruptionInfo) {
			log.Error("store has found corrupt data", "path", info.Path, "error", info.Details)
		},
		DiskSlow: func(info pebbledb.DiskSlowInfo) {
			log.Warn("disk is slow", "path", info.Path, "op", info.OpType.String(), "duration", info.Duration)
		},
		LowDiskSpace: func(info pebbledb.LowDiskSpaceInfo) {
			log.Warn("disk is nearly full", "available_bytes", info.AvailBytes, "total_bytes", info.TotalBytes)
		},
		WriteStallBegin: func(info pebbledb.WriteStallBeginInfo) {
			log.Warn("store holds writes back until the disk catches up", "reason", info.Reason)
		},
		WriteStallEnd: func() { log.Info("store accepts writes again") },
	}
}
