package traffic

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caravanserai/cara/e2e/robustness/model"
)

// Recorder collects the history of a run.
type Recorder struct {
	start  time.Time
	values atomic.Int64

	mu sync.Mutex
	h  model.History
}

// NewRecorder returns a recorder whose clock starts now.
func NewRecorder(scenario string, seed uint64) *Recorder {
	return &Recorder{start: time.Now(), h: model.History{Scenario: scenario, Seed: seed}}
}

// Now returns the time of the history's clock.
func (r *Recorder) Now() int64 { return time.Since(r.start).Nanoseconds() }

// fresh returns a value that nobody has written.
func (r *Recorder) fresh() int { return int(r.values.Add(1)) }

func (r *Recorder) operation(op model.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Operations = append(r.h.Operations, op)
}

func (r *Recorder) listing(l model.Listing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Listings = append(r.h.Listings, l)
}

func (r *Recorder) watch(w model.Watch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Watches = append(r.h.Watches, w)
}

func (r *Recorder) push(p model.Push) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Pushes = append(r.h.Pushes, p)
}

// Fault records a fault that began at a time of Now and ends now.
func (r *Recorder) Fault(name string, start int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Faults = append(r.h.Faults, model.Fault{Start: start, End: r.Now(), Name: name})
}

// History returns what was recorded, when all who record have ended.
func (r *Recorder) History() *model.History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.h
	h.Operations = slices.Clone(h.Operations)
	return &h
}
