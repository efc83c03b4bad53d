// Package meter keeps what the services of a node used in the last hour, for plots. A Sampler measures the containers each 15 s
// and adds the figures to a History. Nobody has to look for that, so it must cost little: it reads a few files of the
// kernel for each container and calls the engine only when a container has started.
//
// Invariants:
//
//   - The figures are in memory only, at most Length intervals for each of MaxServices services: 5 KB for each service. They begin
//     again when the agent starts.
//   - A service has one series, whatever containers it had. Nothing is invented: an interval in which nothing was measured has no
//     value, and the figures of a project end with its uid.
//   - A file of the kernel counts only if the kernel says that the process is in the container's control group. So a process
//     id that is used again, or that belongs to another machine, is never mistaken for the container's.
//   - If the engine runs elsewhere, the engine itself is asked, which is slow: perStep containers in each interval. The
//     mean since the container's last turn then counts for each interval in between.
package meter

import (
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// Interval is the time between two values.
	Interval = 15 * time.Second
	// Length is how many values are kept: those of an hour.
	Length = 240
	// MaxServices limits the services whose usage is kept.
	MaxServices = 2000
)

// unknown is a value that was not measured.
const unknown = -1

// Values is what a service used in one interval. A value that was not measured is unknown.
type Values struct {
	CPUMillis float32 // thousandths of a core
	Memory    float32 // bytes, at the end of the interval
	Received  float32 // bytes a second
	Sent      float32 // bytes a second
	Requests  float32 // a second
}

func nothing() Values { return Values{unknown, unknown, unknown, unknown, unknown} }

// plus returns the sum of what two containers of a service used.
func (v Values) plus(w Values) Values {
	return Values{
		sum(v.CPUMillis, w.CPUMillis), sum(v.Memory, w.Memory), sum(v.Received, w.Received), sum(v.Sent, w.Sent), sum(v.Requests, w.Requests),
	}
}

func sum(a, b float32) float32 {
	switch {
	case a < 0:
		return b
	case b < 0:
		return a
	}
	return a + b
}

// Service names a service of one life of a project.
type Service struct{ Project, UID, Name string }

// History has the values of the last hour. The callers number the intervals: the first one is 0.
type History struct {
	every time.Duration // the length of an interval

	mu       sync.Mutex
	projects map[string]*project
	services int // of all projects
}

type project struct {
	uid      string
	services map[string]*series
}

// series are the values of one service in a ring: the value of interval n is at n modulo Length.
type series struct {
	last   int64 // the newest interval
	values [Length]Values
}

// NewHistory returns a History without values, whose intervals are that long.
func NewHistory(every time.Duration) *History {
	return &History{every: every, projects: map[string]*project{}}
}

// Add adds what a container of a service used in each interval from first to last. If there are too many services, the projects of
// which nothing was measured in this interval and the one before make room, the oldest first. If there is no such project, the values
// are dropped.
func (h *History) Add(of Service, first, last int64, v Values) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.series(of, last)
	if s == nil {
		return
	}
	s.advance(last)
	for n := max(first, s.last-Length+1, 0); n <= last; n++ {
		at := &s.values[n%Length]
		*at = at.plus(v)
	}
}

// series returns the series of a service, or nil if there is no room for it.
func (h *History) series(of Service, now int64) *series {
	p := h.projects[of.Project]
	if p != nil && p.uid != of.UID {
		h.drop(of.Project)
		p = nil
	}
	if p != nil && p.services[of.Name] != nil {
		return p.services[of.Name]
	}
	if h.services >= MaxServices && !h.makeRoom(now) {
		return nil
	}
	if p = h.projects[of.Project]; p == nil { // it may have made room itself
		p = &project{uid: of.UID, services: map[string]*series{}}
		h.projects[of.Project] = p
	}
	s := &series{last: now - Length}
	s.advance(now)
	p.services[of.Name] = s
	h.services++
	return s
}

// makeRoom drops the project that was measured longest ago, but none of those that are measured now.
func (h *History) makeRoom(now int64) bool {
	oldest, name := now-1, ""
	for project, p := range h.projects {
		if last := p.last(); last < oldest {
			oldest, name = last, project
		}
	}
	h.drop(name)
	return name != ""
}

func (h *History) drop(name string) {
	if p := h.projects[name]; p != nil {
		h.services -= len(p.services)
		delete(h.projects, name)
	}
}

// last returns the last interval in which something of the project was measured.
func (p *project) last() int64 {
	last := int64(math.MinInt64)
	for _, s := range p.services {
		last = max(last, s.last)
	}
	return last
}

// advance makes n the newest interval. Intervals without values have nothing.
func (s *series) advance(n int64) {
	for at := max(s.last+1, n-Length+1, 0); at <= n; at++ {
		s.values[at%Length] = nothing()
	}
	s.last = max(s.last, n)
}

// Expire drops the services of which nothing was measured in the last hour.
func (h *History) Expire(now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, p := range h.projects {
		for service, s := range p.services {
			if s.last <= now-Length {
				delete(p.services, service)
				h.services--
			}
		}
		if len(p.services) == 0 {
			delete(h.projects, name)
		}
	}
}

// Of returns the values of some services of a project, or of all if none is named, up to the interval now, which ended at end.
func (h *History) Of(project, uid string, names []string, now int64, end time.Time) (out []*carav1.ServiceUsageHistory) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.projects[project]
	if p == nil || p.uid != uid {
		return nil
	}
	for name, s := range p.services {
		if len(names) == 0 || slices.Contains(names, name) {
			m := s.message(name, now)
			m.Time, m.Interval = timestamppb.New(end), durationpb.New(h.every)
			out = append(out, m)
		}
	}
	return out
}

// message returns the values from the first one that was measured in the last hour.
func (s *series) message(name string, now int64) *carav1.ServiceUsageHistory {
	m := &carav1.ServiceUsageHistory{Service: name}
	for n := now - Length + 1; n <= now; n++ {
		v := nothing()
		if n >= 0 && n > s.last-Length && n <= s.last {
			v = s.values[n%Length]
		}
		if v == nothing() && len(m.GetCpuMillis()) == 0 {
			continue
		}
		m.CpuMillis = append(m.CpuMillis, v.CPUMillis)
		m.MemoryBytes = append(m.MemoryBytes, v.Memory)
		m.ReceivedBytesPerSecond = append(m.ReceivedBytesPerSecond, v.Received)
		m.SentBytesPerSecond = append(m.SentBytesPerSecond, v.Sent)
		m.RequestsPerSecond = append(m.RequestsPerSecond, v.Requests)
	}
	return m
}
