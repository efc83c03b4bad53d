package sources

import (
	"net/url"
	"strings"
	"sync"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// lanes isolate slow sources. They limit the concurrent passes over sources on one host, and over all failing sources.
// Sources beyond the limit wait without occupying a worker.
type lanes struct {
	width int // of each lane

	mu      sync.Mutex
	busy    map[string]int
	waiting map[string]*queue // by lane
}

// queue has the sources that wait for a lane, in order of arrival, each once.
type queue struct {
	order []string
	has   map[string]struct{}
}

func newLanes(width int) *lanes {
	return &lanes{width: max(1, width), busy: map[string]int{}, waiting: map[string]*queue{}}
}

// enter takes a slot in a lane. If none is free, the source waits, and leave returns it later.
func (l *lanes) enter(lane, source string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[lane] < l.width {
		l.busy[lane]++
		return true
	}
	w := l.waiting[lane]
	if w == nil {
		w = &queue{has: map[string]struct{}{}}
		l.waiting[lane] = w
	}
	if _, waits := w.has[source]; !waits {
		w.has[source] = struct{}{}
		w.order = append(w.order, source)
	}
	return false
}

// leave frees the slot, and returns the source that has waited longest, or an empty string.
func (l *lanes) leave(lane string) (next string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[lane]--; l.busy[lane] == 0 {
		delete(l.busy, lane)
	}
	if w := l.waiting[lane]; w != nil {
		next = w.order[0]
		delete(w.has, next)
		if w.order = w.order[1:]; len(w.order) == 0 {
			delete(l.waiting, lane)
		}
	}
	return next
}

// failing is the lane of every source whose last pass failed, whatever its host.
const failing = " failing"

func laneOf(src *carav1.Source, failures int) string {
	if failures > 0 {
		return failing
	}
	address := src.GetSpec().GetGit().GetUrl()
	if address == "" {
		return "dir " + src.GetMetadata().GetName() // each directory has its own lane, as if on its own disk
	}
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Host
	}
	host, _, _ := strings.Cut(address, ":")
	return host
}
