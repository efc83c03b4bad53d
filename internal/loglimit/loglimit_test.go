package loglimit

import (
	"testing"
	"time"
)

// TestTroublesAreToldSeldom: a service that is down under load does not flood the agent's own log.
func TestTroublesAreToldSeldom(t *testing.T) {
	var s Limit
	now := time.Unix(1000, 0)
	said, unsaid := 0, 0
	for n := range 1000 {
		if left, ok := s.Say(now.Add(time.Duration(n) * 10 * time.Millisecond)); ok {
			said++
			unsaid += left
		}
	}
	if said != 10 || unsaid != 9*99 {
		t.Errorf("said %d times that %d were not said, want 10 and %d", said, unsaid, 9*99)
	}
}

// TestBurst: the first messages pass without a pause.
func TestBurst(t *testing.T) {
	s, said := Limit{Burst: 5}, 0
	for range 50 {
		if _, ok := s.Say(time.Unix(1000, 0)); ok {
			said++
		}
	}
	if _, ok := s.Say(time.Unix(1000, 0)); ok || said != 5 {
		t.Errorf("said %d times, want 5", said)
	}
}
