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
	Remove        Verb = "Remove"        // remove the record of a Terminated project
	ClearOverride Verb = "ClearOverride" // end an override that ran out
	Notice        Verb = "Notice"        // say on a project that it expires soon
)

// notices is the part of the agenda that has notices: a project may have one and its end beside each other.
const notices = "Notice"

// Action is one thing to do to one object, and when.
type Action struct {
	Verb Verb
	Name string
	// UID of the project; empty for overrides.
	UID string
	// At is when it is due; zero for at once.
	At time.Time
}

// key names the object that the action is about, and for a notice that it is one.
func (a Action) key() string {
	switch a.Verb {
	case ClearOverride:
		return api.KindOverride + "/" + a.Name
	case Notice:
		return notices + "/" + a.Name
	case Expire, Remove:
	}
	return api.KindProject + "/" + a.Name
}

// keysOf are all that an object may have on the agenda.
func keysOf(m proto.Message) []string {
	name := api.Meta(m).GetName()
	if api.Kind(m) == api.KindProject {
		return []string{api.KindProject + "/" + name, notices + "/" + name}
	}
	return []string{api.Kind(m) + "/" + name}
}

// ActionsFor says what time will do to an object. A project that expires gets its notice so long before.
func ActionsFor(m proto.Message, before time.Duration) []Action {
	switch m := m.(type) {
	case *carav1.Project:
		end, ok := forProject(m)
		if !ok {
			return nil
		}
		if notice, ok := noticeFor(m, end, before); ok {
			return []Action{notice, end}
		}
		return []Action{end}
	case *carav1.Override:
		if m.GetUntil() != nil {
			return []Action{{Verb: ClearOverride, Name: m.GetMetadata().GetName(), At: m.Until.AsTime()}}
		}
	}
	return nil
}

// noticeFor is when a project's end is to be announced: once, and never in the first half of a short life.
func noticeFor(p *carav1.Project, end Action, before time.Duration) (Action, bool) {
	if end.Verb != Expire || api.IsTrue(p.GetStatus().GetConditions(), api.CondExpiring) {
		return Action{}, false
	}
	if born := p.GetMetadata().GetCreationTimestamp(); born != nil {
		before = min(before, end.At.Sub(born.AsTime())/2)
	}
	if before <= 0 {
		return Action{}, false
	}
	end.Verb, end.At = Notice, end.At.Add(-before)
	return end, true
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
