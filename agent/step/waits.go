package step

import (
	"slices"
	"time"
)

// Postponed lets through, of what was decided, what keeps up what there is. All else must not be begun while an agent that
// took over here would know nothing of it.
func Postponed(actions []Action, why error) []Action {
	out := slices.Clone(actions)
	for i, x := range out {
		switch x.Kind {
		case KindRestartContainer, KindUnpauseContainer, KindConnectContainer, KindWait:
		case KindStopContainer:
			if x.Previous { // it would make room for a successor
				out[i] = Action{Kind: KindWait, Service: x.Service, Name: x.Name, Reason: why.Error()}
			}
		default:
			out[i] = Action{Kind: KindWait, Service: x.Service, Name: x.Name, Reason: why.Error()}
		}
	}
	return out
}

// NextLook is when the first of the waits ends; 0 where something else than time ends them.
func NextLook(actions []Action, now time.Time) time.Duration {
	var again time.Duration
	for _, x := range actions {
		if x.Until.IsZero() {
			continue
		}
		if d := max(x.Until.Sub(now), time.Millisecond); again == 0 || d < again {
			again = d
		}
	}
	return again
}
