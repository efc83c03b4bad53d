package step

import (
	"maps"
	"slices"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// Have is the state of one project: the engine's state, just read, and what the agent remembers of the current rollout.
type Have struct {
	Networks   []engine.Network
	Volumes    []engine.Volume
	Containers []engine.Container
	// Managed are the project's Managed volumes in the engine, used or not. They are apart from Volumes, because nothing may
	// remove them with the project.
	Managed []engine.Volume
	// Missing says, by the name of a Host volume in the manifest, why its path cannot be mounted.
	Missing map[string]string
	// Images maps each reference that was looked for to whether the image exists.
	Images map[string]bool
	// Unfetched are the digests of the files of the source that are not on this node.
	Unfetched map[string]bool
	// Health of containers with a check, by id. Missing until the first probe has ended.
	Health map[string]Health
	// Facts are the known images that containers were created from, by image id.
	Facts map[string]engine.Image
	// Digests of images that containers were created from, by image id.
	Digests map[string]string
	// Leaving are the containers that the last pass decided to stop, and since when. They may still have requests to finish.
	// Unlike Memory, it outlives a rollout: the next one must not route requests back to a container that was taken over from.
	Leaving map[string]time.Time
	// Record outlives a rollout and the agent.
	Record Record
	// Memory of the current rollout.
	Memory Memory
	// Moving is the state of the project's move.
	Moving Moving
}

// Memory is what the agent remembers of one rollout, in addition to the engine's state. Losing it, as in a restart of the
// agent, costs backoff and progress, but never correctness.
type Memory struct {
	Pulls    map[string]Pull     // by image reference
	Restarts map[string]Restarts // by service; of a previous container, by its id
	Tries    map[string]Try      // failed actions, by Action.Key
	Failure  *Failure
	// Update is why a service's successor will not take over. The previous containers are kept running.
	Update *Failure
}

// Failure is a terminal error of a rollout.
type Failure struct {
	Service string
	// Container whose log explains the failure, or empty.
	Container string
	// Update is true if only the service's successor failed, and the previous version still serves.
	Update bool
	// Forgotten is true if an earlier agent saw the failure and its message is unknown.
	Forgotten bool
	Reason    api.Reason
	Message   string
}

// Health of a container with a check, from the agent's probes.
type Health struct {
	State string // HealthStarting, HealthHealthy, HealthUnhealthy
	// Ever is true if it has been healthy since it started.
	Ever    bool
	Message string
}

// Find returns the container with an id, or a zero one if it is gone.
func (h *Have) Find(id string) engine.Container {
	i := slices.IndexFunc(h.Containers, func(c engine.Container) bool { return c.ID == id })
	if i < 0 {
		return engine.Container{}
	}
	return h.Containers[i]
}

// Up reports whether the container with an id is running or paused.
func (h *Have) Up(id string) bool { return up(h.Find(id)) }

// Grace returns the stop grace period of a container.
func (h *Have) Grace(id string) time.Duration {
	if grace := h.Find(id).Grace; grace != nil {
		return *grace
	}
	return api.DefaultStopGracePeriod
}

// Stops reports whether an action stops a running container.
func (h *Have) Stops(x Action) bool {
	return x.Kind == KindStopContainer || x.Kind == KindDeleteContainer && h.Up(x.ID)
}

func up(c engine.Container) bool {
	return c.State == engine.StateRunning || c.State == engine.StatePaused || c.State == engine.StateRestarting
}

// Snapshot returns a copy of the memory for one decision, so that Step's input does not change.
func (m Memory) Snapshot() Memory {
	return Memory{Pulls: maps.Clone(m.Pulls), Restarts: maps.Clone(m.Restarts), Tries: maps.Clone(m.Tries), Failure: m.Failure, Update: m.Update}
}
