package step

import (
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

// Sighting records when one container was first seen in its current state. The engine's clock differs from the agent's:
// either may be wrong, or may be set while both run. So the agent never compares a time of the engine with its own. It
// measures the age of a run from when it first saw it, on its monotonic clock. Two times of the engine may be compared with
// each other.
type Sighting struct {
	started, finished time.Time // by the engine's clock: identify the run
	up, down          time.Time // by the agent's clock
}

// Sight converts the times of listed containers to the agent's clock: StartedAt and FinishedAt become the times when the
// agent first saw the change. It returns the sightings for the next look.
func Sight(containers []engine.Container, before map[string]Sighting, now time.Time) map[string]Sighting {
	after := make(map[string]Sighting, len(containers))
	for i := range containers {
		c := &containers[i]
		c.ReportedStart = c.StartedAt
		was := before[c.ID]
		is := Sighting{started: c.StartedAt, finished: c.FinishedAt}
		switch {
		case c.FinishedAt.IsZero():
		case c.FinishedAt.Equal(was.finished):
			is.down = was.down
		default:
			is.down = now
		}
		switch {
		case c.StartedAt.IsZero():
		case c.StartedAt.Equal(was.started):
			is.up = was.up
		case up(*c) || c.FinishedAt.Before(c.StartedAt):
			is.up = now
		default: // it has already ended: the engine knows how long it ran
			is.up = is.down.Add(-c.FinishedAt.Sub(c.StartedAt))
		}
		c.StartedAt, c.FinishedAt = is.up, is.down
		after[c.ID] = is
	}
	return after
}
