package gc

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Verb is what to do when an object is due.
type Verb string

// Verbs of the garbage collector.
const (
	Expire        Verb = "Expire"        // delete a project whose expiry has passed
	Remove        Verb = "Remove"        // remove the record of a Terminated project
	ClearOverride Verb = "ClearOverride" // mark a project that expires soon
	Notice        Verb = "Notice"        // say on a project that it expires soon
)

// notices is the key prefix of notices, since a project may have both a notice and an expiry on the agenda.
const notices = "Notice"

// Action is one thing to do to one object at a given time.
type Action struct {
	Verb Verb
	Name string
	// UID of the project; empty for overrides.
	UID string
	// At is when the action is due. Zero means immediately.
	At time.Time
}

// key identifies the object, and separates a project's notice from its other action.
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

// keysOf returns every key that an object may have on the agenda.
func keysOf(m proto.Message) []string {
	name := api.Meta(m).GetName()
	if api.Kind(m) == api.KindProject {
		return []string{api.KindProject + "/" + name, notices + "/" + name}
	}
	return []string{api.Kind(m) + "/" + name}
}

// ActionsFor returns the actions for an object. The notice of a project is due the given time before its expiry.
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

// noticeFor returns the notice for a project's expiry. A project gets one notice for each expiry, and never in the first
// half of its life.
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
		return Action{}, false // already being deleted
	}
	at := api.Expiry(p) // an operator's extension, or that of the spec
	if at == nil {
		return Action{}, false
	}
	a.Verb, a.At = Expire, at.AsTime()
	return a, true
}

// Due removes the due actions from the agenda, earliest first, and returns when the next one is due. Zero means never.
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
