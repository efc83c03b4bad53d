// Package garbage sets how often the garbage collector runs in a program that is busy. It belongs to no step of a push; the agent uses it
// for its ingress.
//
// Go collects when the memory in use has doubled. The agent uses a few MiB, so under load it would collect dozens of times a second, and
// spend a sixth of its time on that. With many connections it uses hundreds of MiB, and twice that would be a lot.
//
// Invariants: a program that is idle collects as Go does, so its memory does not grow. A pace that the operator has chosen (GOGC) stays.
package garbage

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	standard = 100 // Go's own percentage
	most     = 400
	least    = 70
	room     = 16 << 20 // memory that a busy program may allocate between two collections, in bytes

	look  = time.Second
	quiet = 10 // looks without a collection after which a program is idle
)

// percent returns by how much the memory in use may grow until the next collection, in percent. live is the memory in use, in bytes.
func percent(live uint64, busy bool) int {
	p := standard
	if live > 0 {
		p = int(min(most, max(least, room*100/live)))
	}
	if !busy {
		p = min(p, standard)
	}
	return p
}

// Run sets the pace until ctx ends, and returns nil. Only one Run can be active in a process.
func Run(ctx context.Context) error {
	set := debug.SetGCPercent(standard)
	if set != standard {
		debug.SetGCPercent(set) // the operator's
		return nil
	}
	defer func() { debug.SetGCPercent(standard) }()
	samples := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(look)
	defer tick.Stop()
	seen, still := uint64(0), quiet
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		metrics.Read(samples)
		if cycles := samples[0].Value.Uint64(); cycles != seen {
			seen, still = cycles, 0
		} else {
			still++
		}
		if next := percent(samples[1].Value.Uint64(), still < quiet); next != set {
			debug.SetGCPercent(next)
			set = next
		}
	}
}
