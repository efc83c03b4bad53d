package meter

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// inspectsPerStep is how many containers the engine is asked for in each interval to learn their process ids.
	inspectsPerStep = 100
	// perStep is how many containers the engine is asked to measure in each interval, if the kernel does not show them, and
	// atOnce how many at the same time. A call takes a second or two, and the engine 25 ms of a processor.
	perStep = 16
	atOnce  = 8
	// askedAfter is when the engine measures a container again, if perStep allows it: in each fourth interval.
	askedAfter = 4*Interval - Interval/2
	// patience is how long all calls of an interval may take.
	patience = 10 * time.Second
	// maxSpread is for how many intervals a mean may count. After a longer time without a reading, a gap stays.
	maxSpread = 80
)

// Engine is what a Sampler needs of the engine.
type Engine interface {
	InspectContainer(ctx context.Context, id string) (engine.Container, error)
	Stats(ctx context.Context, id string, follow bool, emit func(engine.ContainerUsage)) error
}

// Sampler measures the containers of a node.
type Sampler struct {
	engine   Engine
	kernel   kernel // set by Run
	requests func(project, service string) (count uint64, ok bool)
	every    time.Duration
	history  *History
	began    time.Time    // intervals are counted from here, by a clock that is never set
	done     atomic.Int64 // the last interval that was measured; -1 at first

	mu         sync.Mutex
	containers []engine.Container // of the last listing

	known map[string]*tracked // by container; only step uses it
	asked map[Service]tally   // only step uses it
}

// tracked is what is known of a running container.
type tracked struct {
	of       Service
	pid      int
	foreign  bool // the kernel did not show it at the last look
	last     reading
	interval int64 // of last
}

// NewSampler returns a Sampler. requests returns how many requests the ingress has passed to a service; it may be nil. every is the
// interval, or 0 for Interval.
func NewSampler(e Engine, requests func(project, service string) (uint64, bool), every time.Duration) *Sampler {
	every = cmp.Or(every, Interval)
	s := &Sampler{
		engine: e, requests: requests, every: every, history: NewHistory(every), began: time.Now(),
		known: map[string]*tracked{}, asked: map[Service]tally{},
	}
	s.done.Store(-1)
	return s
}

// Saw tells which containers the engine has. The caller must not change them afterwards.
func (s *Sampler) Saw(containers []engine.Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.containers = containers
}

// Of returns what some services of a project used in the last hour, or all if none is named.
func (s *Sampler) Of(project, uid string, services []string) []*carav1.ServiceUsageHistory {
	now, n := time.Now(), s.done.Load()
	// The end is counted back from now, because the wall clock may have been set since began.
	ago := now.Sub(s.began) - time.Duration(n+1)*s.every
	return s.history.Of(project, uid, services, n, now.Add(-ago))
}

// Run measures until ctx ends.
func (s *Sampler) Run(ctx context.Context) error {
	s.kernel = kernelAt("/")
	ticker := time.NewTicker(s.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.step(ctx)
		}
	}
}

// step measures all containers once.
func (s *Sampler) step(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	now := time.Now()
	n := int64(now.Sub(s.began)/s.every) - 1 // the interval that has just ended
	if n <= s.done.Load() {
		return // the step before came late, and has measured this interval
	}
	defer s.done.Store(n)
	running := s.running()
	var unread []string
	for _, id := range running {
		t := s.known[id]
		r, err := s.kernel.read(t.pid, id, now)
		if err != nil {
			unread = append(unread, id)
			continue
		}
		s.add(t, r, n)
	}
	s.count(now, n) // before look, which may take until the patience is over
	s.look(ctx, unread, n)
	s.history.Expire(n)
}

// running returns the ids of the containers that ran at the last listing, and forgets the others.
func (s *Sampler) running() (ids []string) {
	s.mu.Lock()
	listed := s.containers
	s.mu.Unlock()
	known := make(map[string]*tracked, len(listed))
	for _, c := range listed {
		service := c.Labels[api.LabelService]
		if c.State != engine.StateRunning && c.State != engine.StatePaused || service == "" {
			continue
		}
		t := s.known[c.ID]
		if t == nil {
			t = &tracked{of: Service{c.Labels[api.LabelProject], c.Labels[api.LabelUID], service}}
		}
		known[c.ID] = t
		ids = append(ids, c.ID)
	}
	s.known = known
	return ids
}

// add adds a reading of a container at the end of interval n. It counts for each interval since the last reading.
func (s *Sampler) add(t *tracked, r reading, n int64) {
	first, v := n, r.since(t.last)
	if v.CPUMillis != unknown && n-t.interval <= maxSpread {
		first = t.interval + 1
	}
	s.history.Add(t.of, first, n, v)
	t.last, t.interval = r, n
}

// look asks the engine about containers that the kernel did not show: first for their process ids, because they may have
// restarted, then for what they use. Those whose last reading is oldest come first.
func (s *Sampler) look(ctx context.Context, ids []string, n int64) {
	slices.SortStableFunc(ids, func(a, b string) int { return s.known[a].last.at.Compare(s.known[b].last.at) })
	inspects, measures := inspectsPerStep, perStep
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, id := range ids {
		t := s.known[id]
		switch {
		case t.foreign && (measures == 0 || time.Since(t.last.at) < askedAfter):
			continue
		case t.foreign:
			measures--
		case inspects == 0:
			continue
		default:
			inspects--
		}
		g.Go(func() error {
			s.lookAt(ctx, id, t, n)
			return nil
		})
	}
	_ = g.Wait() // lookAt leaves a gap instead of an error
}

// lookAt finds the process of a container. If the kernel does not show it, the engine measures the container from the next interval on.
func (s *Sampler) lookAt(ctx context.Context, id string, t *tracked, n int64) {
	c, err := s.engine.InspectContainer(ctx, id)
	if err != nil || c.State != engine.StateRunning && c.State != engine.StatePaused {
		return
	}
	t.pid = c.PID
	if r, err := s.kernel.read(t.pid, id, time.Now()); err == nil {
		t.foreign = false
		s.add(t, r, n)
		return
	}
	if !t.foreign {
		t.foreign = true
		return
	}
	_ = s.engine.Stats(ctx, id, false, func(u engine.ContainerUsage) { // an error leaves a gap
		s.add(t, reading{at: time.Now(), cpu: u.CPUTime, memory: u.Memory, received: u.Received, sent: u.Sent}, n)
	})
}

// count adds the requests of the services that were measured.
func (s *Sampler) count(now time.Time, n int64) {
	if s.requests == nil {
		return
	}
	asked := make(map[Service]tally, len(s.asked))
	for _, t := range s.known {
		if _, done := asked[t.of]; done {
			continue
		}
		count, ok := s.requests(t.of.Project, t.of.Name)
		if !ok {
			continue
		}
		asked[t.of] = tally{now, count}
		v := nothing()
		v.Requests = asked[t.of].since(s.asked[t.of])
		s.history.Add(t.of, n, n, v)
	}
	s.asked = asked
}

// reading is what a container has used since it started, and its memory at that time.
type reading struct {
	at             time.Time
	cpu            time.Duration // of all processors together
	memory         int64         // bytes, without page cache that the kernel can drop
	received, sent int64         // bytes
}

// since returns what a container used between two readings. After a restart the kernel counts from 0 again, and after the first
// reading there is nothing to compare: then only the memory is known.
func (r reading) since(before reading) Values {
	v := nothing()
	v.Memory = float32(max(r.memory, 0))
	seconds := r.at.Sub(before.at).Seconds()
	if before.at.IsZero() || seconds <= 0 || r.cpu < before.cpu || r.received < before.received || r.sent < before.sent {
		return v
	}
	v.CPUMillis = float32((r.cpu - before.cpu).Seconds() / seconds * 1000)
	v.Received = float32(float64(r.received-before.received) / seconds)
	v.Sent = float32(float64(r.sent-before.sent) / seconds)
	return v
}

// tally is how many requests a service has received, at some time.
type tally struct {
	at    time.Time
	count uint64
}

// since returns the requests a second. They are unknown at first, and after the count has begun again.
func (t tally) since(before tally) float32 {
	seconds := t.at.Sub(before.at).Seconds()
	if before.at.IsZero() || seconds <= 0 || t.count < before.count {
		return unknown
	}
	return float32(float64(t.count-before.count) / seconds)
}
