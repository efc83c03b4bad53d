package agent

import (
	"cmp"
	"time"

	"github.com/caravanserai/cara/agent/engine"
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

// Pull is one image's pull in this rollout.
type Pull struct {
	Running  bool
	Done     bool
	Progress engine.Progress
	Digest   string
	// Err is why the last one failed; Final says that asking again is no use, else it is due again at Next.
	Err   string
	Final bool
	Count int
	Next  time.Time
}

// Restarts of one service's container by the agent.
type Restarts struct {
	// Row counts restarts since it last stayed up long enough; it gives the delay of the next.
	Row int
	// Total counts all of them, for the status.
	Total int
	// Recent are the times within the window.
	Recent []time.Time
}

// Try is an action that failed.
type Try struct {
	Count int
	Err   string
	// Final says that trying again is no use.
	Final bool
	// Foreign says that something which is not ours is in the way.
	Foreign bool
	// NoRoom says that it may well succeed later, however often it failed.
	NoRoom bool
	Next   time.Time
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
	Reason    string
	Message   string
}

// Health of a container with a check, as the agent's probes see it.
type Health struct {
	State string // HealthStarting, HealthHealthy, HealthUnhealthy
	// Ever says that it has been healthy since it started.
	Ever    bool
	Message string
}

// RestartLimits say how a container that exits is restarted: the first time at once, then after Base, doubling to
// Max, forgotten after Reset of being up; more than Limit within Window is a failure.
type RestartLimits struct {
	Base, Max, Reset, Window time.Duration
	Limit                    int
	// Settle is how long a successor without a health check must have been up before it takes over.
	Settle time.Duration
}

// withDefaults fills in what the design says.
func (l RestartLimits) withDefaults() RestartLimits {
	l.Base = cmp.Or(l.Base, time.Second)
	l.Max = cmp.Or(l.Max, 5*time.Minute)
	l.Reset = cmp.Or(l.Reset, 10*time.Minute)
	l.Window = cmp.Or(l.Window, 10*time.Minute)
	l.Limit = cmp.Or(l.Limit, 5)
	l.Settle = cmp.Or(l.Settle, 5*time.Second)
	return l
}

// due says when a container that started and ended at these times is restarted, or that it has been too often.
func (l RestartLimits) due(r Restarts, started, finished, now time.Time) (at time.Time, exhausted bool) {
	if l.stable(started, finished) {
		return finished, false
	}
	recent := 0
	for _, t := range r.Recent {
		if now.Sub(t) < l.Window {
			recent++
		}
	}
	if recent >= l.Limit {
		return time.Time{}, true
	}
	if r.Row == 0 {
		return finished, false
	}
	return finished.Add(l.delay(r.Row)), false
}

// delay before the next attempt after n failed ones.
func (l RestartLimits) delay(n int) time.Duration {
	d := l.Base
	for range n - 1 {
		if d *= 2; d >= l.Max {
			return l.Max
		}
	}
	return min(d, l.Max)
}

func (l RestartLimits) stable(started, finished time.Time) bool {
	return !started.IsZero() && finished.Sub(started) >= l.Reset
}

// again is what to remember once a container that started and ended at these times is restarted.
func (l RestartLimits) again(r Restarts, started, finished, now time.Time) Restarts {
	next := Restarts{Row: r.Row + 1, Total: r.Total + 1}
	if l.stable(started, finished) {
		next.Row = 1
	}
	for _, t := range r.Recent {
		if now.Sub(t) < l.Window && !l.stable(started, finished) {
			next.Recent = append(next.Recent, t)
		}
	}
	next.Recent = append(next.Recent, now)
	return next
}
