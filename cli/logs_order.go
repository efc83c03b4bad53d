package cli

import (
	"cmp"
	"container/heap"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// maxHeldLogs bounds the lines that wait for an earlier one, in bytes.
const maxHeldLogs = 8 << 20

// logOrder brings the lines of several services into the order of their times. It holds back at most so many bytes: what
// comes later than that stands where it came. With most 0 every line goes through at once.
type logOrder struct {
	emit func(*carav1.LogLine)
	most int

	held  logHeap
	bytes int
	count int
	last  time.Time // of the line before
}

// heldLine is a line with its place among those that came.
type heldLine struct {
	*carav1.LogLine
	at    time.Time
	place int
}

func (o *logOrder) add(l *carav1.LogLine) {
	if l.GetTime() != nil {
		o.last = l.GetTime().AsTime()
	}
	heap.Push(&o.held, heldLine{l, o.last, o.count})
	o.count++
	o.bytes += weight(l)
	for o.bytes > o.most {
		o.next()
	}
}

func (o *logOrder) flush() {
	for len(o.held) > 0 {
		o.next()
	}
}

func (o *logOrder) next() {
	l := heap.Pop(&o.held).(heldLine)
	o.bytes -= weight(l.LogLine)
	o.emit(l.LogLine)
}

// weight is about what a line takes of memory.
func weight(l *carav1.LogLine) int { return len(l.GetLine()) + 256 }

// logHeap has the earliest line first; of two at one time, the one that came first.
type logHeap []heldLine

func (h logHeap) Len() int { return len(h) }
func (h logHeap) Less(i, j int) bool {
	return cmp.Or(h[i].at.Compare(h[j].at), cmp.Compare(h[i].place, h[j].place)) < 0
}
func (h logHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *logHeap) Push(x any)   { *h = append(*h, x.(heldLine)) }
func (h *logHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = heldLine{} // let go of the line
	*h = (*h)[:last]
	return x
}
