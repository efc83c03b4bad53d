// Package loglimit limits how often a message is logged that callers can cause. It stands between a listener that refuses or
// fails something and its log: whoever sends bad requests as fast as possible fills no disk, and the log still says how many
// there were.
//
// Invariant: a message is logged if none was logged in the second before it, and the number of those between two logged ones is
// never lost.
package loglimit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limit limits a message to one per second after the first Burst, and counts the suppressed ones. Its zero value has suppressed nothing.
type Limit struct {
	// Burst is how many messages pass without a pause; 0 means one.
	Burst int

	mu     sync.Mutex
	limit  *rate.Limiter // nil before the first message
	unsaid int
}

// Say reports whether to log the message now, and how many were suppressed before it.
func (s *Limit) Say(now time.Time) (unsaid int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit == nil {
		s.limit = rate.NewLimiter(1, max(s.Burst, 1))
	}
	if !s.limit.AllowN(now, 1) {
		s.unsaid++
		return 0, false
	}
	unsaid, s.unsaid = s.unsaid, 0
	return unsaid, true
}
