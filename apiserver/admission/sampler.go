package admission

import (
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	sampleRate = 1 // lines a second
	// SampleBurst is how many lines go through at once.
	SampleBurst = 10
)

// Sampler lets some of many lines through, and counts those that it leaves out.
type Sampler struct {
	limit *rate.Limiter
	left  atomic.Int64
}

// NewSampler returns a Sampler that has left out nothing.
func NewSampler() *Sampler { return &Sampler{limit: rate.NewLimiter(sampleRate, SampleBurst)} }

// Take says whether the line is written, and how many were left out before it.
func (s *Sampler) Take(now time.Time) (left int64, ok bool) {
	if !s.limit.AllowN(now, 1) {
		s.left.Add(1)
		return 0, false
	}
	return s.left.Swap(0), true
}
