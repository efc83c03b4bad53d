package admission

import (
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	sampleRate = 1 // lines a second
	// SampleBurst is how many lines pass without a pause.
	SampleBurst = 10
)

// Sampler passes some of many log lines and counts the ones that it drops.
type Sampler struct {
	limit *rate.Limiter
	left  atomic.Int64
}

// NewSampler returns a Sampler that has dropped nothing.
func NewSampler() *Sampler { return &Sampler{limit: rate.NewLimiter(sampleRate, SampleBurst)} }

// Take reports whether to write the line, and how many lines were dropped before it.
func (s *Sampler) Take(now time.Time) (left int64, ok bool) {
	if !s.limit.AllowN(now, 1) {
		s.left.Add(1)
		return 0, false
	}
	return s.left.Swap(0), true
}
