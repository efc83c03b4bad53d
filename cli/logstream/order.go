// Package logstream puts the log lines of several services in order, and remembers how far they were read, so that a stream that
// breaks continues with the next line. It does no I/O.
package logstream

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/google/btree"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// MaxHeld limits the lines that are held back to be sorted, in bytes.
const MaxHeld = 8 << 20

// Order sorts the lines of several services by time. It holds back at most Most bytes; a line that comes
// later than that is shown when it comes. With 0, no line is held back.
type Order struct {
	Emit func(*carav1.LogLine)
	Most int

	held  *btree.BTreeG[heldLine] // nil before the first line
	bytes int
	count int
	last  time.Time // of the previous line
}

// heldLine is a line with its position among the received lines, in which lines with the same time stay.
type heldLine struct {
	*carav1.LogLine
	at    time.Time
	place int
}

// Add takes the next line of the stream.
func (o *Order) Add(l *carav1.LogLine) {
	if l.GetTime() != nil {
		o.last = l.GetTime().AsTime()
	}
	if o.held == nil {
		o.held = btree.NewG(32, func(x, y heldLine) bool { return cmp.Or(x.at.Compare(y.at), cmp.Compare(x.place, y.place)) < 0 })
	}
	o.held.ReplaceOrInsert(heldLine{l, o.last, o.count})
	o.count++
	o.bytes += weight(l)
	for o.bytes > o.Most {
		o.next()
	}
}

// Flush emits the lines that are held back.
func (o *Order) Flush() {
	for o.held != nil && o.held.Len() > 0 {
		o.next()
	}
}

func (o *Order) next() {
	l, _ := o.held.DeleteMin() // there is one
	o.bytes -= weight(l.LogLine)
	o.Emit(l.LogLine)
}

// weight is about how much memory a line takes.
func weight(l *carav1.LogLine) int { return len(l.GetLine()) + 256 }

// Mark records the position in the log of each stream of a service, so that the stream after a broken one continues with the
// next line. Only what a new stream repeats is left out: lines of one service need not be ordered by time, because the engine
// writes standard output and standard error independently, and a service may have two containers.
type Mark map[source]*place

// source is standard output or standard error of a service.
type source struct {
	service string
	stderr  bool
}

// place is how far one log was read.
type place struct {
	at      time.Time // of the newest line
	read    int       // number of lines with that time
	until   time.Time // at, when the current stream began; zero for the first one
	repeats int       // number of lines with the time until that the current stream will repeat
	away    bool
}

// IsNew reports whether a line is new, and records it as read. A line without a time is always new.
func (m Mark) IsNew(l *carav1.LogLine) bool {
	if l.GetTime() == nil {
		return true
	}
	of := source{l.GetService(), l.GetStderr()}
	at, p := l.GetTime().AsTime(), m[of]
	if p == nil {
		m[of] = &place{at: at, read: 1}
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

// Away reports the first break of a stream; false for later ones until lines have come again.
func (m Mark) Away() bool {
	first := false
	for _, p := range m {
		first = first || !p.away
		p.away = true
	}
	return first || len(m) == 0
}

// Resume makes req ask for what comes after the mark. Lines of the marked times come again, and IsNew recognises them.
func (m Mark) Resume(req *carav1.LogsRequest) {
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
