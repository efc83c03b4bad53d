package step

import (
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

// TestSight: the age of a run counts from when it was first seen, whatever the engine's clock shows.
func TestSight(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, skew := range map[string]time.Duration{"the engine is ahead": time.Hour, "behind": -time.Hour, "the same": 0} {
		there := now.Add(skew)
		runs := engine.Container{ID: "1", State: engine.StateRunning, StartedAt: there}
		ended := engine.Container{ID: "1", State: engine.StateExited, StartedAt: there, FinishedAt: there.Add(-time.Minute)} // set back meanwhile
		again := engine.Container{ID: "1", State: engine.StateRunning, StartedAt: there.Add(time.Second), FinishedAt: there.Add(-time.Minute)}
		var seen map[string]Sighting
		for i, tt := range []struct {
			look     engine.Container
			at       time.Duration
			up, down time.Duration // after now; below 0: never
		}{
			{engine.Container{ID: "1", State: engine.StateCreated}, 0, -1, -1},
			{runs, 1 * time.Second, 1 * time.Second, -1},
			{runs, 5 * time.Second, 1 * time.Second, -1},
			{ended, 6 * time.Second, 1 * time.Second, 6 * time.Second},
			{ended, 9 * time.Second, 1 * time.Second, 6 * time.Second},
			{again, 10 * time.Second, 10 * time.Second, 6 * time.Second},
		} {
			c := []engine.Container{tt.look}
			seen = Sight(c, seen, now.Add(tt.at))
			for what, pair := range map[string]struct {
				got  time.Time
				want time.Duration
			}{"started": {c[0].StartedAt, tt.up}, "finished": {c[0].FinishedAt, tt.down}} {
				if pair.want < 0 && !pair.got.IsZero() || pair.want >= 0 && !pair.got.Equal(now.Add(pair.want)) {
					t.Errorf("%s, look %d: %s at %s, want %s after %s", name, i, what, pair.got, pair.want, now)
				}
			}
			if !c[0].ReportedStart.Equal(tt.look.StartedAt) {
				t.Errorf("%s, look %d: reported %s, want %s", name, i, c[0].ReportedStart, tt.look.StartedAt)
			}
		}
		c := []engine.Container{{ID: "2", State: engine.StateExited, StartedAt: there, FinishedAt: there.Add(time.Minute)}}
		Sight(c, nil, now)
		if !c[0].FinishedAt.Equal(now) || !c[0].StartedAt.Equal(now.Add(-time.Minute)) {
			t.Errorf("%s: one that ran a minute and was not seen running: %s to %s", name, c[0].StartedAt, c[0].FinishedAt)
		}
	}
}
