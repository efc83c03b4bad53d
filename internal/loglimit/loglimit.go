// Package loglimit limits how often a message is logged that callers can cause. It stands between a listener that refuses or
// fails something and its log: whoever sends bad requests as fast as possible fills no disk, and the log still says how many
// there were.
//
// Invariant: the first message of a second is logged, and the number of those between two logged ones is never lost.
package loglimit

import (
	"sync"
	"time"
)

// Limit limits a message to one per second, and counts the suppressed ones. Its zero value has suppressed nothing.
type Limit struct {
	mu     sync.Mutex
	last   time.Time
	unsaid int
}

// Say reports whether to log the message now, and how many were suppressed before it.
func (s *Limit) Say(now time.Time) (unsaid int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.last) < time.Second {
		s.unsaid++
		return 0, false
	}
	unsaid = s.unsaid
	s.last, s.unsaid = now, 0
	return unsaid, true
}
