package cli

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// logMark is how far each service's log was read, by service, so that a stream that broke off goes on with the next line:
// no line is shown twice, and none is left out.
type logMark map[string]*logPlace

// logPlace is the last line of one service that was read.
type logPlace struct {
	at   time.Time
	read int // lines of that time that were read
	seen int // of them, those that the stream at hand has brought again
	away bool
}

// isNew reports whether a line was not read before, and marks it as read. A line without a time is always new.
func (m logMark) isNew(l *carav1.LogLine) bool {
	if l.GetTime() == nil {
		return true
	}
	at, p := l.GetTime().AsTime(), m[l.GetService()]
	switch {
	case p == nil:
		m[l.GetService()] = &logPlace{at: at, read: 1, seen: 1}
		return true
	case at.Before(p.at):
		return false
	case at.After(p.at):
		*p = logPlace{at: at, read: 1, seen: 1}
		return true
	}
	p.away = false
	p.seen++
	if p.seen <= p.read {
		return false
	}
	p.read = p.seen
	return true
}

// away reports whether the stream has just broken off; false until lines have come again.
func (m logMark) away() bool {
	first := false
	for _, p := range m {
		first = first || !p.away
		p.away = true
	}
	return first || len(m) == 0
}

// resume asks for what comes after the mark. Lines of the marked times come again, and are recognised.
func (m logMark) resume(req *carav1.LogsRequest) {
	var since time.Time
	for _, p := range m {
		p.seen = 0
		if since.IsZero() || p.at.Before(since) {
			since = p.at
		}
	}
	if !since.IsZero() {
		req.Since, req.Tail = timestamppb.New(since), 0
	}
}
