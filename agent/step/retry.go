package step

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

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

// RestartLimits say how a container that exits is restarted: the first time at once, then after Base, doubling to
// Max, forgotten after Reset of being up; more than Limit within Window is a failure.
type RestartLimits struct {
	Base, Max, Reset, Window time.Duration
	Limit                    int
	// Settle is how long a successor without a health check must have been up before it takes over.
	Settle time.Duration
}

// WithDefaults fills in what the design says.
func (l RestartLimits) WithDefaults() RestartLimits {
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

// Restarts of one service's container by the agent.
type Restarts struct {
	// Row counts restarts since it last stayed up long enough; it gives the delay of the next.
	Row int
	// Total counts all of them, for the status.
	Total int
	// Recent are the times within the window.
	Recent []time.Time
}

// Remember keeps what an action's outcome means for the next decision.
func (m Memory) Remember(want *Want, have *Have, action Action, err error, now time.Time) {
	switch {
	case err == nil:
		delete(m.Tries, action.Key())
	case errors.Is(err, engine.ErrUnavailable), errors.Is(err, context.Canceled):
		return
	default:
		t, noRoom := m.Tries[action.Key()], errors.Is(err, engine.ErrNoRoom)
		if t.NoRoom != noRoom { // attempts that found no room do not count against the others
			t = Try{NoRoom: noRoom}
		}
		t.Count++
		pause := want.Limits.delay(t.Count)
		if noRoom {
			pause = min(pause, longestPause)
		}
		t.Err, t.Next = err.Error(), now.Add(pause)
		t.Foreign = errors.Is(err, engine.ErrForeign)
		t.Final = t.Foreign || errors.Is(err, engine.ErrInvalid)
		m.Tries[action.Key()] = t
		return
	}
	if action.Kind == KindPull {
		pull := m.Pulls[action.Name]
		pull.Running = true
		m.Pulls[action.Name] = pull
	}
	if action.Kind == KindRestartContainer && action.Restart == "" { // what an operator asked for is no failure
		c, key := have.Find(action.ID), action.Service
		if action.Previous {
			key = action.ID
		}
		m.Restarts[key] = want.Limits.again(m.Restarts[key], c.StartedAt, c.FinishedAt, now)
	}
}

const (
	// freely is how often an action that has an effect may be done without a pause.
	freely = 3
	// longestPause bounds the pauses of paced, and those of an action that found no room: nothing tells when that comes back.
	longestPause = 30 * time.Second
)
