package peers

import (
	"testing"
	"time"
)

// TestQuiet: the log says once that news are missing, after a while, and only then that they are back.
func TestQuiet(t *testing.T) {
	begin := time.Unix(1000, 0)
	q := quiet{since: begin}
	for _, step := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {newsMissing - 1, false}, {newsMissing, true}, {2 * newsMissing, false}} {
		if got := q.begin(begin.Add(step.after)); got != step.want {
			t.Errorf("after %v: %v, want %v", step.after, got, step.want)
		}
	}
	if !q.end() || q.end() {
		t.Error("the end is not said once")
	}
	later := begin.Add(time.Hour)
	if q.begin(later) || q.begin(later.Add(newsMissing-1)) || q.end() {
		t.Error("a short silence is said")
	}
}
