package scheduler

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
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

// TestWhenANodeWasLost: once the scheduler has seen when a node was lost, a clock that is set does not change how long ago that was.
func TestWhenANodeWasLost(t *testing.T) {
	began := time.Now()
	for name, test := range map[string]struct {
		stored time.Duration // before now
		want   time.Duration
	}{
		"a minute ago":                         {time.Minute, time.Minute},
		"by a clock that is ahead of this one": {-time.Hour, 0},
	} {
		m, n := newMemory(), node("n1", "8Gi")
		n.Status.Conditions = []*carav1.Condition{{Type: api.CondReady, LastTransitionTime: timestamppb.New(began.Add(-test.stored))}}
		m.noteNode("n1", n, began)
		at := m.turns["n1"].at
		if began.Sub(at) != test.want || !strings.Contains(at.String(), "m=") {
			t.Errorf("%s: lost at %s, want %s before %s, with a monotonic reading", name, at, test.want, began)
		}
		m.noteNode("n1", n, began.Add(time.Second).Round(0).Add(time.Hour)) // somebody has set the clock
		if m.turns["n1"].at != at {
			t.Errorf("%s: it was lost at %s, and now at %s", name, at, m.turns["n1"].at)
		}
		n.Status.Conditions[0].LastTransitionTime = timestamppb.New(began.Add(time.Minute))
		m.noteNode("n1", n, began.Add(2*time.Minute))
		if again := m.turns["n1"].at; began.Add(time.Minute).Sub(again) != 0 {
			t.Errorf("%s: lost again at %s", name, again)
		}
		if m.noteNode("n1", nil, began); len(m.turns) > 0 {
			t.Errorf("%s: the loss of a node that was deleted is kept", name)
		}
	}
}
