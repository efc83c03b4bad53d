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

// Actions, in the order in which they are done. Check sends a project that is in place: the server says whether the
// source may still have it.
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

// rank orders the actions: what is declared comes to life before what is no longer declared goes.
func (a Action) rank() int {
	return slices.Index([]Action{Create, Adopt, HandOver, Update, Check, Delete, Keep, Forget}, a)
}

// Applies reports whether the step sends the claim's project to the server.
func (a Action) Applies() bool { return a.rank() <= Check.rank() }

// Step is one thing to do about one project, or the reason to do nothing.
type Step struct {
	Action  Action
	Project string
	// Reason is a word: why the step is there.
	Reason string
	// Diff is what differs between the project and git. For an override it is shown and not applied.
	Diff []*carav1.FieldDiff
	// From is the owner that a HandOver takes the project from.
	From string
	// UID of the project that the step was decided on; empty for Create.
	UID string
	// State and Message of the claim once the step is done. Without a State the claim's status stays.
	State, Message string

	Row Row
}

// Differs reports whether the project is not as the source declares it, whether or not the step changes that.
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

// Unclaimed explains the projects of a source that no pass over it touches: those that it owns and never declared, and
// those in the inventory of an earlier source of the same name. The reconciler has no use for these steps; people do.
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

// Plan takes the cluster from what it has to what one source wants, in order.
type Plan struct {
	Source   string
	Revision string
	// Steps in the order in which they are done. What is in place and known to be so has none.
	Steps []Step
	// Settled counts the projects that are in place.
	Settled int
	// Owned counts the projects that the source owns and that are not on their way out.
	Owned int
	// Prune is the verdict over what would be deleted.
	Prune Verdict
	// Ended are projects whose override ended because git changed: the record must be removed.
	Ended []string
	// Remove is true where the source is deleted and has released everything.
	Remove bool
	// Next is when time alone changes the plan; zero for never.
	Next time.Time
}

// Wake makes the plan be looked at again at t.
func (p *Plan) Wake(t time.Time) {
	if p.Next.IsZero() || t.Before(p.Next) {
		p.Next = t
	}
}

// Diff plans for one source. It is a pure function of its input.
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
			continue // no word of this very source
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

// Settled is the common case, answered at once: applied, in place and known to be so.
func Settled(r *Row, s *carav1.Source) bool {
	return r.Claim != nil && r.Project != nil && r.Live == r.Want && r.Override == nil &&
		r.Claim.Spec.Present && r.Claim.Spec.Held == "" && r.Claim.Spec.SourceUid == s.Metadata.Uid &&
		r.Status.GetState() == api.ClaimApplied && r.Status.AppliedHash == r.Want && r.Status.ProjectUid == r.UID() &&
		r.owner() == Owner(s.Metadata.Name) && !r.going()
}

// planOverride wakes at an override's end, and notes one that git has ended.
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
