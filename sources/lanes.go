package sources

import (
	"net/url"
	"slices"
	"strings"
	"sync"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// lanes keep what is slow from what is not: of one host, and of all sources that fail, only so many are looked at at
// once. The rest waits without holding a worker.
type lanes struct {
	width int // of each

	mu      sync.Mutex
	busy    map[string]int
	waiting map[string][]string // sources by lane, in the order they came
}

func newLanes(width int) *lanes {
	return &lanes{width: max(1, width), busy: map[string]int{}, waiting: map[string][]string{}}
}

// enter takes a place in a lane. If no place is free, leave wakes the source when one may be.
func (l *lanes) enter(lane, source string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[lane] < l.width {
		l.busy[lane]++
		return true
	}
	if !slices.Contains(l.waiting[lane], source) {
		l.waiting[lane] = append(l.waiting[lane], source)
	}
	return false
}

// leave gives the place back, and returns the source that waited longest for one, or nothing.
func (l *lanes) leave(lane string) (next string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[lane]--; l.busy[lane] == 0 {
		delete(l.busy, lane)
	}
	if w := l.waiting[lane]; len(w) > 0 {
		next = w[0]
		l.waiting[lane] = w[1:]
		if len(w) == 1 {
			delete(l.waiting, lane)
		}
	}
	return next
}

// failing is the lane of every source that could not be read the last time, whatever its host.
const failing = " failing"

// laneOf is where a source is looked at.
func laneOf(src *carav1.Source, failures int) string {
	if failures > 0 {
		return failing
	}
	address := src.GetSpec().GetGit().GetUrl()
	if address == "" {
		return "dir " + src.GetMetadata().GetName() // a disk of its own, for all that is known
	}
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Host
	}
	host, _, _ := strings.Cut(address, ":")
	return host
}
