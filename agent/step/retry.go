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
	// Final is true if a retry is pointless.
	Final bool
	// Foreign is true if a foreign object has the name.
	Foreign bool
	// NoRoom is true if the action may succeed later, however often it has failed.
	NoRoom bool
	Next   time.Time
}

// RestartLimits define how a container that exits is restarted: the first time immediately, then after Base, doubling up to
// Max. The count restarts after the container was up for Reset. More than Limit restarts within Window are a failure.
type RestartLimits struct {
	Base, Max, Reset, Window time.Duration
	Limit                    int
	// Settle is how long a successor without a health check must be up before it takes over.
	Settle time.Duration
}

// WithDefaults sets the defaults.
func (l RestartLimits) WithDefaults() RestartLimits {
	l.Base = cmp.Or(l.Base, time.Second)
	l.Max = cmp.Or(l.Max, 5*time.Minute)
	l.Reset = cmp.Or(l.Reset, 10*time.Minute)
	l.Window = cmp.Or(l.Window, 10*time.Minute)
	l.Limit = cmp.Or(l.Limit, 5)
	l.Settle = cmp.Or(l.Settle, 5*time.Second)
	return l
}

// due returns when a container that started and ended at these times is restarted, or that it was restarted too often.
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

// delay returns the wait after n failed attempts.
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

// again returns the state after a container that started and ended at these times is restarted.
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

// Restarts counts the restarts of one service's container by the agent.
type Restarts struct {
	// Row counts restarts since it last stayed up long enough. It determines the next delay.
	Row int
	// Total counts all restarts, for the status.
	Total int
	// Recent are the times of restarts within the window.
	Recent []time.Time
}

// Remember records the result of an action for the next decision.
func (m Memory) Remember(want *Want, have *Have, action Action, err error, now time.Time) {
	switch {
	case err == nil:
		delete(m.Tries, action.Key())
	case errors.Is(err, engine.ErrUnavailable), errors.Is(err, context.Canceled):
		return
	default:
		m.Tries[action.Key()] = m.Tries[action.Key()].failed(err, want.Limits, now)
		return
	}
	if action.Kind == KindPull {
		pull := m.Pulls[action.Name]
		pull.Running = true
		m.Pulls[action.Name] = pull
	}
	if action.Kind == KindRestartContainer && action.Restart == "" && !action.ForMove { // a restart by an operator, or after a move, is not a failure
		c, key := have.Find(action.ID), action.Service
		if action.Previous {
			key = action.ID
		}
		m.Restarts[key] = want.Limits.again(m.Restarts[key], c.StartedAt, c.FinishedAt, now)
	}
}

// failed returns t after one more failure. Attempts that found no room are counted separately.
func (t Try) failed(err error, limits RestartLimits, now time.Time) Try {
	noRoom := errors.Is(err, engine.ErrNoRoom)
	if t.NoRoom != noRoom {
		t = Try{NoRoom: noRoom}
	}
	t.Count++
	pause := limits.delay(t.Count)
	if noRoom {
		pause = min(pause, longestPause)
	}
	t.Err, t.Next = err.Error(), now.Add(pause)
	t.Foreign = errors.Is(err, engine.ErrForeign)
	t.Final = t.Foreign || errors.Is(err, engine.ErrInvalid)
	return t
}

const (
	// freely is how often an effective action may be repeated without a pause.
	freely = 3
	// longestPause limits the pauses of Pace, and those of an action that found no room, because nothing reports when there is
	// room again.
	longestPause = 30 * time.Second
)
