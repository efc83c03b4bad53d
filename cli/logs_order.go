package cli

import (
	"cmp"
	"container/heap"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// maxHeldLogs limits the lines that are held back to be sorted, in bytes.
const maxHeldLogs = 8 << 20

// logOrder sorts the lines of several services by time. It holds back at most the given number of bytes; a line that comes
// later than that is shown when it comes. With most 0 no line is held back.
type logOrder struct {
	emit func(*carav1.LogLine)
	most int

	held  logHeap
	bytes int
	count int
	last  time.Time // of the previous line
}

// heldLine is a line with its position among the received lines.
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

// weight is about how much memory a line takes.
func weight(l *carav1.LogLine) int { return len(l.GetLine()) + 256 }

// logHeap has the earliest line first. Lines with the same time keep the order in which they were received.
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
	(*h)[last] = heldLine{} // release the line
	*h = (*h)[:last]
	return x
}

// logMark records the position in the log of each stream of a service, so that the stream after a broken one continues with the
// next line. Only what a new stream repeats is left out: lines of one service need not be ordered by time, because the engine
// writes standard output and standard error independently, and a service may have two containers.
type logMark map[logSource]*logPlace

// logSource is standard output or standard error of a service.
type logSource struct {
	service string
	stderr  bool
}

// logPlace is how far one log was read.
type logPlace struct {
	at      time.Time // of the newest line
	read    int       // number of lines with that time
	until   time.Time // at, when the current stream began; zero for the first one
	repeats int       // number of lines with the time until that the current stream will repeat
	away    bool
}

// isNew reports whether a line is new, and records it as read. A line without a time is always new.
func (m logMark) isNew(l *carav1.LogLine) bool {
	if l.GetTime() == nil {
		return true
	}
	of := logSource{l.GetService(), l.GetStderr()}
	at, p := l.GetTime().AsTime(), m[of]
	if p == nil {
		m[of] = &logPlace{at: at, read: 1}
		return true
	}
	p.away = false
	switch {
	case at.Before(p.until):
		return false
	case at.Equal(p.until) && p.repeats > 0:
		p.repeats--
		return false
	case at.After(p.at):
		p.at, p.read = at, 1
	case at.Equal(p.at):
		p.read++
	}
	return true
}

// away reports the first break of a stream; false for later ones until lines have come again.
func (m logMark) away() bool {
	first := false
	for _, p := range m {
		first = first || !p.away
		p.away = true
	}
	return first || len(m) == 0
}

// resume makes req ask for what comes after the mark. Lines of the marked times come again, and isNew recognises them.
func (m logMark) resume(req *carav1.LogsRequest) {
	var since time.Time
	for _, p := range m {
		p.until, p.repeats = p.at, p.read
		if since.IsZero() || p.at.Before(since) {
			since = p.at
		}
	}
	if !since.IsZero() {
		req.Since, req.Tail = timestamppb.New(since), 0
	}
}
