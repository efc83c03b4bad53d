// Package garbage sets how often the garbage collector runs. It belongs to no step of a push; the agent uses it for its ingress, the
// server for the state that it keeps in memory.
//
// Go collects when the memory in use has doubled. A program that uses a few MiB and is busy would collect dozens of times a second, and
// spend a sixth of its time on that. One that uses hundreds of MiB would keep twice that, even at rest.
//
// Invariants: a program that is idle gets no more memory than Go gives it. A pace that the operator has chosen (GOGC) stays.
package garbage

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	standard = 100 // Go's own percentage

	look  = time.Second
	quiet = 10 // looks without a collection after which a program is idle
)

// Heap is what a Pace decides on.
type Heap struct {
	Live uint64 // memory in use after the last collection, in bytes
	Rate uint64 // bytes allocated in a second: now, or on average over the last seconds if that is more
	Busy bool   // false if there was no collection for some seconds
}

// Pace returns by how much the memory in use may grow until the next collection, in percent.
type Pace func(Heap) int

// Agent is the pace of a program that uses little memory: while it is busy, it may allocate 16 MiB between two collections.
func Agent(h Heap) int {
	const (
		room  = 16 << 20
		most  = 400
		least = 70
	)
	p := standard
	if h.Live > 0 {
		p = int(min(most, max(least, room*100/h.Live)))
	}
	if !h.Busy {
		p = min(p, standard)
	}
	return p
}

// Server is the pace of a program that may have much in memory, and changes little of it most of the time. At rest it collects when
// the memory in use has grown by a tenth, but not more often than every 20 seconds, so that the collections cost little. The more it
// allocates, the closer it comes to Go's own pace. It never gets more memory than that: strangers decide how busy a server is.
func Server(h Heap) int {
	const (
		between = 20      // seconds
		tight   = 8 << 20 // a smaller server gains nothing
	)
	if h.Live == 0 {
		return standard
	}
	grow := max(between*h.Rate, tight, h.Live/10)
	return int(min(standard, grow*100/h.Live))
}

// Run sets the pace until ctx ends, and returns nil. Only one Run can be active in a process.
func Run(ctx context.Context, pace Pace) error {
	set := debug.SetGCPercent(standard)
	if set != standard {
		debug.SetGCPercent(set) // the operator's
		return nil
	}
	defer func() { debug.SetGCPercent(standard) }()
	tick := time.NewTicker(look)
	defer tick.Stop()
	m := newMeter()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if next := pace(m.look()); differs(next, set) {
			debug.SetGCPercent(next)
			set = next
		}
	}
}

// differs reports whether a new percentage is worth a change, which stops all goroutines for a moment. A program that is no longer busy
// never keeps more than Go's own.
func differs(next, set int) bool {
	return next > set+set/8 || next < set-set/8 || (next <= standard && set > standard)
}

// meter observes the heap.
type meter struct {
	samples   []metrics.Sample
	cycles    uint64 // collections until the last look
	allocated uint64 // bytes until the last look
	rate      uint64
	still     int // looks since the last collection
}

func newMeter() *meter {
	m := &meter{still: quiet, samples: []metrics.Sample{
		{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"},
	}}
	metrics.Read(m.samples)
	m.allocated = m.samples[2].Value.Uint64()
	return m
}

// look is called once in a second.
func (m *meter) look() Heap {
	metrics.Read(m.samples)
	cycles, live, allocated := m.samples[0].Value.Uint64(), m.samples[1].Value.Uint64(), m.samples[2].Value.Uint64()
	now := allocated - m.allocated
	m.allocated, m.rate = allocated, smooth(m.rate, now)
	if cycles != m.cycles {
		m.cycles, m.still = cycles, 0
	} else {
		m.still++
	}
	return Heap{Live: live, Rate: m.rate, Busy: m.still < quiet}
}

// smooth returns the rate after a second with now bytes. A burst counts at once, and is forgotten within seconds.
func smooth(rate, now uint64) uint64 { return max(now, (3*rate+now)/4) }
