package live

import (
	"testing"
	"time"
)

// TestOnClock: a time is told by the clock of now, also if somebody has set it.
func TestOnClock(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		age  time.Duration
		now  time.Time
		want time.Time
	}{
		"nobody set the clock":      {5 * time.Second, at.Add(5 * time.Second), at},
		"the clock was adjusted":    {5 * time.Second, at.Add(5*time.Second + 20*time.Millisecond), at},
		"the clock was set ahead":   {5 * time.Second, at.Add(10 * time.Minute), at.Add(10*time.Minute - 5*time.Second)},
		"the clock was set back":    {5 * time.Second, at.Add(-10 * time.Minute), at.Add(-10*time.Minute - 5*time.Second)},
		"the machine was suspended": {5 * time.Second, at.Add(time.Hour), at.Add(time.Hour - 5*time.Second)},
	} {
		if got := onClock(at, test.age, test.now); !got.Equal(test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// TestLastBeat: the time of a heartbeat has no monotonic reading, which no answer has either.
func TestLastBeat(t *testing.T) {
	s := New(time.Now())
	if got := s.LastBeat("n1", time.Now()); !got.IsZero() {
		t.Errorf("a node that was never heard of: %s", got)
	}
	at := time.Now()
	s.Beats.Note("n1", at)
	if got := s.LastBeat("n1", at.Add(time.Minute)); got != at.Round(0) {
		t.Errorf("%s, want %s", got, at.Round(0))
	}
}
