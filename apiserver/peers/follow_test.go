package peers

import (
	"testing"
	"time"
)

// TestSilence: missing news are logged once, after newsMissing. Only then their return is logged.
func TestSilence(t *testing.T) {
	begin := time.Unix(1000, 0)
	s := silence{since: begin}
	for _, step := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {newsMissing - 1, false}, {newsMissing, true}, {2 * newsMissing, false}} {
		if got := s.begin(begin.Add(step.after)); got != step.want {
			t.Errorf("after %v: %v, want %v", step.after, got, step.want)
		}
	}
	if !s.end() || s.end() {
		t.Error("the return of the news is not logged once")
	}
	later := begin.Add(time.Hour)
	if s.begin(later) || s.begin(later.Add(newsMissing-1)) || s.end() {
		t.Error("a short silence is logged")
	}
}
