package scheduler

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// TestSilence: a node has been silent since its last heartbeat, and no longer than the scheduler runs.
func TestSilence(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		started time.Time
		beat    time.Duration // before now
		want    time.Duration
	}{
		"a node that beats":                 {now.Add(-time.Hour), 5 * time.Second, 5 * time.Second},
		"a silent node":                     {now.Add(-time.Hour), time.Minute, time.Minute},
		"a clock that was set back":         {now.Add(-time.Hour), -time.Minute, 0},
		"a scheduler that has just started": {now.Add(-time.Second), time.Minute, time.Second},
	} {
		if got := silence(now, test.started, timestamppb.New(now.Add(-test.beat))); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
	if got := silence(now, now.Add(-time.Minute), nil); got != time.Minute {
		t.Errorf("without a heartbeat since the start: %s", got)
	}
}
