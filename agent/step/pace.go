package step

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Nothing is repeated for a project without a pause, whatever Step decides and whatever the engine answers: every action
// passes through Pace first. Pace delays an action in two cases.
//
//   - It was done before and nothing changed. For example, an engine with a full disk may start a container and still list
//     it as created. Such an action waits as long as a failed one.
//   - It was done often, each time with an effect that did not last. From the fourth time on it waits longer each time.
//
// A failed action is delayed by Memory.Tries, and one that the engine does not answer by the queue.

// pastAction is an action that was done in this rollout.
type pastAction struct {
	action Action
	before string    // state of the subject just before
	at     time.Time // when it was last done
	times  int       // how often it was done, with less than RestartLimits.Reset in between
	futile int       // how often in a row nothing had changed at the next look
	judged bool      // a look has followed, so futile is known
}

// History holds the actions of a rollout, by Action.Key.
type History map[string]pastAction

// Judge compares the subject of each action with its state before the action. It is called with the first look after the
// actions.
func (p History) Judge(have *Have) {
	for key, done := range p {
		if done.judged {
			continue
		}
		done.judged = true
		if have.subject(done.action) == done.before {
			done.futile++
		} else {
			done.futile = 0
		}
		p[key] = done
	}
}

// Add records an action that the engine accepted.
func (p History) Add(action Action, have *Have, limits RestartLimits, now time.Time) {
	done := p[action.Key()]
	if now.Sub(done.at) >= limits.Reset {
		done = pastAction{}
	}
	p[action.Key()] = pastAction{action: action, before: have.subject(action), at: now, times: done.times + 1, futile: done.futile}
}

// Pace replaces the actions that must wait by Wait actions with the reason.
func (p History) Pace(actions []Action, limits RestartLimits, now time.Time) []Action {
	out := slices.Clone(actions)
	for i, x := range out {
		done, known := p[x.Key()]
		if !known || x.Kind == KindWait || x.Kind == KindFail {
			continue
		}
		var pause time.Duration
		var why string
		switch {
		case done.futile > 0:
			pause = limits.delay(done.futile)
			why = fmt.Sprintf("%s had no effect: the engine did not refuse it, but nothing changed (%d %s)", x.doing(), done.futile, tries(done.futile))
		case done.times > freely:
			pause = limits.delay(done.times - freely)
			why = fmt.Sprintf("%s was needed %d times", x.doing(), done.times)
		}
		if until := done.at.Add(min(pause, longestPause)); now.Before(until) {
			out[i] = Action{
				Kind: KindWait, Service: x.Service, Name: x.Name, Until: until,
				Reason: fmt.Sprintf("%s; next try at %s", why, until.UTC().Format("15:04:05")),
			}
		}
	}
	return out
}

func tries(n int) string {
	if n == 1 {
		return "try"
	}
	return "tries"
}

// doing describes an action in a sentence.
func (a Action) doing() string {
	verb, what, _ := strings.Cut(map[Kind]string{
		KindPull:          "pulling image",
		KindCreateNetwork: "creating network", KindRemoveNetwork: "removing network",
		KindCreateVolume: "creating volume", KindRemoveVolume: "removing volume",
		KindCreateContainer: "creating container", KindStartContainer: "starting container",
		KindRestartContainer: "restarting container", KindUnpauseContainer: "unpausing container",
		KindConnectContainer: "connecting container", KindUpdateContainer: "changing container",
		KindStopContainer: "stopping container", KindDeleteContainer: "removing container",
	}[a.Kind], " ")
	return strings.Join(strings.Fields(cmp.Or(verb, string(a.Kind))+" "+what+" "+a.Name), " ")
}

// subject returns the last known state of an action's subject. Equal states give equal text.
func (h *Have) subject(x Action) string {
	var out []string
	switch {
	case x.Kind == KindPull:
		out = append(out, fmt.Sprint(h.Images[x.Name], h.Memory.Pulls[x.Name]))
	case strings.HasSuffix(string(x.Kind), "Network"):
		for _, n := range h.Networks {
			if n.Name == x.Name {
				out = append(out, n.ID)
			}
		}
	case strings.HasSuffix(string(x.Kind), "Volume"):
		for _, v := range slices.Concat(h.Volumes, h.Managed) {
			if v.Name == x.Name {
				out = append(out, v.Name)
			}
		}
	default:
		for _, c := range h.Containers {
			if c.ID == x.ID || c.Name == x.Name {
				out = append(out, fmt.Sprint(c.ID, c.State, c.StartedAt, c.FinishedAt, c.ExitCode, c.Limits, c.Networks))
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// Postponed keeps only the actions that maintain what exists. The others must not start while their assignment is not on
// disk, since the next agent would not know about them.
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

// NextLook returns when the first of the waits ends, or 0 if none of them ends by time.
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
