package step

import (
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

// Sighting is when one container was first seen in the state that its last look found. The engine's clock is not the agent's: either may be
// wrong, or may be set while both run. So the agent never compares a time of the engine with its own. It measures the age of a run from the
// moment that it saw it first, on its monotonic clock. Two times of the engine may be compared with one another.
type Sighting struct {
	started, finished time.Time // by the engine's clock: which run this is of
	up, down          time.Time // by the agent's clock
}

// Sight puts the containers of a look on the agent's clock: afterwards StartedAt and FinishedAt are when the agent first saw that. It returns
// the sightings for the next look.
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
		default: // it has ended already: how long it ran, the engine knows
			is.up = is.down.Add(-c.FinishedAt.Sub(c.StartedAt))
		}
		c.StartedAt, c.FinishedAt = is.up, is.down
		after[c.ID] = is
	}
	return after
}
