package gc

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Verb is what is done when an object's time comes.
type Verb string

// Verbs of the garbage collector.
const (
	Expire        Verb = "Expire"        // delete a project whose expiry has passed
	Remove        Verb = "Remove"        // take away the record of a project that is torn down
	ClearOverride Verb = "ClearOverride" // end an override that ran out
)

// Action is one thing to do to one object, and when.
type Action struct {
	Verb Verb
	Name string
	// UID of the project; empty for overrides.
	UID string
	// At is when it is due; zero for at once.
	At time.Time
}

// key names the object that the action is about.
func (a Action) key() string {
	if a.Verb == ClearOverride {
		return api.KindOverride + "/" + a.Name
	}
	return api.KindProject + "/" + a.Name
}

// ActionFor says what time will do to an object; false where it does nothing.
func ActionFor(m proto.Message) (Action, bool) {
	switch m := m.(type) {
	case *carav1.Project:
		return forProject(m)
	case *carav1.Override:
		if m.GetUntil() == nil {
			return Action{}, false
		}
		return Action{Verb: ClearOverride, Name: m.GetMetadata().GetName(), At: m.Until.AsTime()}, true
	}
	return Action{}, false
}

func forProject(p *carav1.Project) (Action, bool) {
	meta, status := p.GetMetadata(), p.GetStatus()
	a := Action{Name: meta.GetName(), UID: meta.GetUid()}
	if status.GetPhase() == api.PhaseTerminated {
		a.Verb = Remove
		return a, true
	}
	if status.GetPhase() == api.PhaseTerminating || meta.GetDeletionTimestamp() != nil {
		return Action{}, false // on its way already
	}
	at := status.GetExpireAt() // what an operator extended it to, or the spec's
	if at == nil {
		at = p.GetSpec().GetExpireAt()
	}
	if at == nil {
		return Action{}, false
	}
	a.Verb, a.At = Expire, at.AsTime()
	return a, true
}

// Due takes what is due off the agenda, the earliest first, and says when the next is due; zero for never.
func Due(a *Agenda, now time.Time) (due []Action, next time.Time) {
	for {
		first, ok := a.first()
		if !ok {
			return due, time.Time{}
		}
		if first.At.After(now) {
			return due, first.At
		}
		a.Drop(first.key())
		due = append(due, first)
	}
}
