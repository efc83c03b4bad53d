package step

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// Have is what there is of one project: what the engine holds, read just now, and what the agent remembers of the
// rollout at hand.
type Have struct {
	Networks   []engine.Network
	Volumes    []engine.Volume
	Containers []engine.Container
	// Images are those that were looked for, by reference, with whether they are there.
	Images map[string]bool
	// Health of containers with a check, by id; absent before the first probe has ended.
	Health map[string]Health
	// Facts are what is known of the images that containers were made from, by image id.
	Facts map[string]engine.Image
	// Digests of images that containers were made from, by image id.
	Digests map[string]string
	// Leaving are containers that were to be stopped at the last look, and since when: they may still have requests to end.
	// Unlike Memory it outlives a rollout: the next one must not lead requests back to what has been taken over from.
	Leaving map[string]time.Time
	// Record is what outlives a rollout, and the agent.
	Record Record
	// Memory of the rollout.
	Memory Memory
}

// Memory is what the agent remembers of one rollout, beside the engine's state. Losing it, as a restart of the agent
// does, costs backoff and progress, never correctness.
type Memory struct {
	Pulls    map[string]Pull     // by image reference
	Restarts map[string]Restarts // by service; of a previous container, by its id
	Tries    map[string]Try      // by Action.Key: actions that failed
	Failure  *Failure
	// Update is why a service's successor will not take over, while the previous containers are kept up.
	Update *Failure
}

// Failure is a terminal error of a rollout.
type Failure struct {
	Service string
	// Container whose log tells more; empty for none.
	Container string
	// Update says that only the service's successor failed: what it should have taken over from serves.
	Update bool
	// Forgotten says that the agent before saw it, and that what it said of it is not known.
	Forgotten bool
	Reason    api.Reason
	Message   string
}

// Health of a container with a check, as the agent's probes see it.
type Health struct {
	State string // HealthStarting, HealthHealthy, HealthUnhealthy
	// Ever says that it has been healthy since it started.
	Ever    bool
	Message string
}

// Find returns the container with an id; a zero one if it is gone.
func (h *Have) Find(id string) engine.Container {
	i := slices.IndexFunc(h.Containers, func(c engine.Container) bool { return c.ID == id })
	if i < 0 {
		return engine.Container{}
	}
	return h.Containers[i]
}

// Up reports whether the container with an id runs, or would if somebody had not paused it.
func (h *Have) Up(id string) bool { return up(h.Find(id)) }

// Grace is how long a container may take to stop.
func (h *Have) Grace(id string) time.Duration {
	return cmp.Or(h.Find(id).Grace, api.DefaultStopGracePeriod)
}

// Stops reports whether an action stops a container that runs.
func (h *Have) Stops(x Action) bool {
	return x.Kind == KindStopContainer || x.Kind == KindDeleteContainer && h.Up(x.ID)
}

func up(c engine.Container) bool {
	return c.State == engine.StateRunning || c.State == engine.StatePaused || c.State == engine.StateRestarting
}

// Snapshot of the memory for one decision: Step gets values that nobody changes.
func (m Memory) Snapshot() Memory {
	return Memory{Pulls: maps.Clone(m.Pulls), Restarts: maps.Clone(m.Restarts), Tries: maps.Clone(m.Tries), Failure: m.Failure, Update: m.Update}
}
