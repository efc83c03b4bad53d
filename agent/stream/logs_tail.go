package stream

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

// An engine that follows a log silently loses and repeats lines when the log's file is rotated. Reads that do not follow are
// correct: the engine opens all files of the log at the same moment. So the agent follows a log by reading it repeatedly,
// and uses the engine's follow mode only as a wake-up signal. logPlace relies on this:
//
//   - A read begins with lines that were forwarded before, in the same order, because a log only grows. They are not
//     forwarded again.
//   - If none of them exists any more, unread lines were rotated away. That is reported.

// logPlace is how far the log of one container has been read. Only one goroutine uses it at a time.
type logPlace struct {
	reading bool
	run     time.Time // StartedAt of the run that was read last, or is being read
	recent  []lineID  // the last lines that were seen, oldest first
	floor   int64     // the newest time of lines that were dropped from recent
	newest  int64     // the newest time of all
	rate    float64   // lines per second, by the log's own times
	got     int       // number of new lines in the last read
}

// lineID identifies a line. Lines with the same time and text are distinguished by their order.
type lineID struct {
	at   int64 // nanoseconds since 1970
	hash uint64
}

const (
	// logOverlap is how far back a read begins, because the lines of the two output streams are not ordered by time.
	logOverlap = time.Second
	// maxRecent limits the lines that are remembered.
	maxRecent = 64 << 10
	// logPause is the pause between two reads of a growing log.
	logPause = 50 * time.Millisecond
	// logWake is the longest time between two reads of a log that does not grow.
	logWake = 5 * time.Second
	// logAhead is how many lines more than the last read found the next one requests.
	logAhead = 1000
)

var (
	errShort = errors.New("more lines are needed")
	errWoken = errors.New("there is a new line")
)

func (p *logPlace) id(seed maphash.Seed, l engine.LogLine) lineID {
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.WriteString(l.Text)
	if l.Stderr {
		_ = h.WriteByte(1)
	}
	return lineID{at: l.Time.UnixNano(), hash: h.Sum64()}
}

// overlap returns the start time of the next read, and the lines since then that were seen before.
func (p *logPlace) overlap() (since time.Time, known []lineID) {
	if len(p.recent) == 0 {
		return time.Time{}, nil
	}
	from := max(p.newest-int64(logOverlap), p.floor+1)
	for _, id := range p.recent {
		if id.at >= from {
			known = append(known, id)
		}
	}
	return time.Unix(0, from), known
}

func (p *logPlace) saw(id lineID) {
	if len(p.recent) >= 2*maxRecent {
		for _, old := range p.recent[:maxRecent] {
			p.floor = max(p.floor, old.at)
		}
		p.recent = slices.Clone(p.recent[maxRecent:])
	}
	p.recent = append(p.recent, id)
	p.newest = max(p.newest, id.at)
}

// logReader reads one container's log.
type logReader struct {
	engine engine.Streams
	id     string
	seed   maphash.Seed
	place  *logPlace
	// emit forwards a line. lost is about how many lines before it were rotated away unread.
	emit func(l engine.LogLine, lost int32) error
}

// read forwards the new lines. last means that no more will come, so an incomplete line is forwarded as it is.
func (r *logReader) read(ctx context.Context, options engine.LogOptions, last bool) error {
	err := r.readFrom(ctx, options, last, len(r.place.recent)+2*r.place.got+logAhead)
	if errors.Is(err, errShort) {
		err = r.readFrom(ctx, options, last, 0)
	}
	return err
}

func (r *logReader) readFrom(ctx context.Context, options engine.LogOptions, last bool, most int) error {
	p := r.place
	since, known := p.overlap()
	options.Follow, options.Whole = false, !last
	if len(known) > 0 {
		options.Since, options.Tail, options.Last = since, 0, most
	}
	before, met, got := p.newest, len(known) == 0, 0
	err := r.engine.Logs(ctx, r.id, options, func(l engine.LogLine) error {
		id, lost := p.id(r.seed, l), int32(0)
		if len(known) > 0 {
			if i := slices.Index(known, id); i >= 0 {
				known, met = known[i+1:], true
				return nil
			}
			if !met && most > 0 {
				return errShort
			}
			if !met {
				gap := time.Duration(id.at - before)
				lost = int32(min(max(1, p.rate*gap.Seconds()), 1<<30)) // an estimate from the rate before the gap
			}
			known, met = nil, true
		}
		got++
		p.saw(id)
		return r.emit(l, lost)
	})
	if errors.Is(err, errShort) {
		return err
	}
	p.got = got
	if d := time.Duration(p.newest - before); before > 0 && got > 0 && d > 0 {
		p.rate = float64(got) / d.Seconds()
	}
	return err
}

// skip remembers the last lines without forwarding them.
func (r *logReader) skip(ctx context.Context) error {
	return r.engine.Logs(ctx, r.id, engine.LogOptions{Last: logAhead, Whole: true}, func(l engine.LogLine) error {
		r.place.saw(r.place.id(r.seed, l))
		return nil
	})
}

// follow reads until the container's run has ended and everything was read.
func (r *logReader) follow(ctx context.Context, options engine.LogOptions) error {
	pause := logPause
	for {
		if err := r.read(ctx, options, false); err != nil {
			return err
		}
		select { // even after a read that found nothing: the line that woke it may not be new
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		if r.place.got > 0 {
			pause = logPause
			continue
		}
		pause = min(2*pause, logWake)
		ended, err := r.sleep(ctx)
		if err != nil {
			return err
		}
		if ended {
			return r.read(ctx, options, true)
		}
	}
}

// sleep waits for a new line, for at most logWake, or until the run has ended.
func (r *logReader) sleep(ctx context.Context) (ended bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, logWake)
	defer cancel()
	since, known := r.place.overlap()
	err = r.engine.Logs(bounded, r.id, engine.LogOptions{Follow: true, Since: since, Last: len(known) + 1}, func(l engine.LogLine) error {
		if slices.Contains(known, r.place.id(r.seed, l)) {
			return nil
		}
		return errWoken
	})
	switch {
	case errors.Is(err, errWoken), err != nil && ctx.Err() == nil && bounded.Err() != nil:
		return false, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	}
	return err == nil, err
}
