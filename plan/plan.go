package plan

import (
	"cmp"
	"slices"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Action is what a step does.
type Action string

// Actions, in the order in which they are done. Check sends a project that is in sync, so that the server checks whether
// the source may still have it.
const (
	Create   Action = api.PlanCreate
	Adopt    Action = api.PlanAdopt
	HandOver Action = api.PlanHandOver
	Update   Action = api.PlanUpdate
	Check    Action = api.PlanCheck
	Delete   Action = api.PlanDelete
	Keep     Action = api.PlanKeep
	Forget   Action = api.PlanForget
)

// rank orders the actions: declared projects are created before others are deleted.
func (a Action) rank() int {
	return slices.Index([]Action{Create, Adopt, HandOver, Update, Check, Delete, Keep, Forget}, a)
}

// Applies reports whether the step sends the claim's project to the server.
func (a Action) Applies() bool { return a.rank() <= Check.rank() }

// Step is one action for one project, or the reason for no action.
type Step struct {
	Action  Action
	Project string
	// Reason is one word.
	Reason string
	// Diff is the difference between the project and git. For an override it is shown and not applied.
	Diff []*carav1.FieldDiff
	// From is the owner that a HandOver takes the project from.
	From string
	// UID is that of the project on which the step was decided; empty for Create.
	UID string
	// State and Message are those of the claim after the step. Without a State, the claim's status does not change.
	State, Message string

	Row Row
}

// Differs reports whether the project differs from the source's declaration, whether or not the step changes that.
func (s *Step) Differs() bool {
	if s.Action == Check || s.Action == Forget {
		return false
	}
	if s.Action != Keep {
		return true
	}
	switch s.Reason {
	case api.ReasonSettled, api.ClaimExpired:
		return false
	case api.ReasonDeleting:
		return s.Row.Present() && s.State != api.ClaimExpired
	case api.ClaimOverridden: // a manifest that equals the project changes nothing
		return s.Row.Project == nil || s.Row.going() || !s.Row.Present() || len(s.Diff) > 0
	}
	return true
}

// Unclaimed explains the projects of a source that a reconciliation never touches: those that it owns but never declared,
// and those in the inventory of an earlier source with the same name. The steps are only for display.
func Unclaimed(in Input) []Step {
	var steps []Step
	me := Owner(in.Source.GetMetadata().GetName())
	for i := range in.Rows {
		r := &in.Rows[i]
		if r.Project == nil || r.owner() != me || r.going() {
			continue
		}
		switch {
		case r.Claim == nil:
			steps = append(steps, keep(r, api.ReasonUnclaimed, "", "the source owns it and never declared it"))
		case r.Claim.GetSpec().GetSourceUid() != in.Source.GetMetadata().GetUid():
			steps = append(steps, keep(r, api.ReasonUnclaimed, "", "an earlier source of this name declared it"))
		}
	}
	return steps
}

// Plan brings the cluster from its current state to what one source declares, in order.
type Plan struct {
	Source   string
	Revision string
	// Steps in the order in which they are done. Projects that are known to be in sync have no step.
	Steps []Step
	// Settled counts the projects that are in sync.
	Settled int
	// Owned counts the projects that the source owns and that are not being deleted.
	Owned int
	// Prune is the verdict about the projects to delete.
	Prune Verdict
	// Ended are projects whose override ended because git changed. The overrides must be removed.
	Ended []string
	// Remove is true if the source is deleted and has released everything.
	Remove bool
	// Next is when the plan changes without any other change; zero means never.
	Next time.Time
}

// Wake requests a new plan at t.
func (p *Plan) Wake(t time.Time) {
	if p.Next.IsZero() || t.Before(p.Next) {
		p.Next = t
	}
}

// Diff computes the plan for one source. It is a pure function of its input.
func Diff(in Input) Plan {
	p := Plan{Source: in.Source.GetMetadata().GetName(), Revision: in.Source.GetStatus().GetSnapshot().GetRevision()}
	switch {
	case in.Source.GetMetadata().GetDeletionTimestamp() != nil:
		planDeletion(&p, in)
	case in.Source.GetSpec().GetSuspend():
		p.Owned = countOwned(in)
	default:
		planPass(&p, in)
	}
	slices.SortFunc(p.Steps, func(a, b Step) int {
		return cmp.Or(cmp.Compare(a.Action.rank(), b.Action.rank()), cmp.Compare(a.Project, b.Project))
	})
	slices.Sort(p.Ended)
	return p
}

func planPass(p *Plan, in Input) {
	prune := PruneInput{Source: in.Source, Now: in.Now, Present: in.Settled}
	p.Settled, p.Owned = in.Settled, in.Settled
	me := Owner(p.Source)
	for i := range in.Rows {
		r := &in.Rows[i]
		if r.Project != nil && r.owner() == me && !r.going() {
			p.Owned++
		}
		if r.Claim == nil || r.Claim.GetSpec().GetSourceUid() != in.Source.Metadata.Uid {
			continue // not a claim of this source
		}
		if r.Override != nil {
			planOverride(p, r, in.Now)
		}
		switch {
		case !r.Present():
			prune.Gone = append(prune.Gone, *r)
			continue
		case r.Claim.Spec.Held != "":
			prune.Held = append(prune.Held, *r)
		}
		prune.Present++
		if Settled(r, in.Source) && !in.Check {
			p.Settled++
			continue
		}
		p.Steps = append(p.Steps, decide(p, r, in))
	}
	if len(prune.Gone) > 0 || len(prune.Held) > 0 {
		prune.Owned = p.Owned
		p.Prune = PruneGate(prune)
		p.Steps = append(p.Steps, p.Prune.steps()...)
	}
}

// Settled reports the common case quickly: the claim is applied and known to be in sync.
func Settled(r *Row, s *carav1.Source) bool {
	return r.Claim != nil && r.Project != nil && r.Live == r.Want && r.Override == nil &&
		r.Claim.Spec.Present && r.Claim.Spec.Held == "" && r.Claim.Spec.SourceUid == s.Metadata.Uid &&
		r.Status.GetState() == api.ClaimApplied && r.Status.AppliedHash == r.Want && r.Status.ProjectUid == r.UID() &&
		belongsTo(r.Project, s.Metadata.Name) && !r.going()
}

// belongsTo compares without building the owner's name, because a pass asks it for every project.
func belongsTo(p *carav1.Project, source string) bool {
	owner, ok := api.SourceOf(p.GetMetadata().GetOwner())
	return ok && owner == source
}

// planOverride schedules a new plan at an override's end, and records one that git has ended.
func planOverride(p *Plan, r *Row, now time.Time) {
	switch {
	case r.endedByGit():
		p.Ended = append(p.Ended, r.Name)
	case r.Override.Until != nil && !EndedByTime(r.Override, now):
		p.Wake(r.Override.Until.AsTime())
	}
}

func countOwned(in Input) int {
	n, me := in.Settled, Owner(in.Source.GetMetadata().GetName())
	for i := range in.Rows {
		if r := &in.Rows[i]; r.Project != nil && r.owner() == me && !r.going() {
			n++
		}
	}
	return n
}

// planDeletion releases everything that a deleted source owns. With onDelete Orphan, the server removes the owner of the
// source's projects when it removes the source. With Delete, the projects are deleted first, except those that another
// source declares: the source stays until those are handed over.
func planDeletion(p *Plan, in Input) {
	me := Owner(p.Source)
	p.Owned = countOwned(in)
	if in.Source.GetSpec().GetOnDelete() != api.OnDeleteDelete {
		p.Remove = true
		return
	}
	waiting := false
	for i := range in.Rows {
		r := &in.Rows[i]
		if r.Project == nil || r.owner() != me {
			continue
		}
		waiting = true
		switch {
		case r.going():
			p.Steps = append(p.Steps, keep(r, api.ReasonDeleting, "", "it is being deleted"))
		case r.Heir(in.Now) != nil:
			p.Steps = append(p.Steps, keep(r, api.ReasonLeftToOther, "", "it is left to "+api.PrefixSource+r.Heir(in.Now).Spec.Source))
		default:
			p.Steps = append(p.Steps, Step{Action: Delete, Project: r.Name, Reason: api.ReasonSourceDeleted, UID: r.UID(), Row: *r})
		}
	}
	p.Remove = !waiting
}
