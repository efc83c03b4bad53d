package plan

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Ten applies of one hash within a minute mean that something else keeps changing the project back.
const (
	breakerLimit  = 10
	breakerWindow = time.Minute
)

// decide returns the step for one project that the source declares.
func decide(p *Plan, r *Row, in Input) Step {
	if r.Claim.Spec.Held != "" {
		return keep(r, api.ClaimHeld, api.ClaimHeld, r.Claim.Spec.Held)
	}
	if r.Project == nil {
		return decideAbsent(p, r, in.Now)
	}
	if r.going() {
		return decideGoing(r, in)
	}
	switch owner := r.owner(); {
	case owner == Owner(p.Source):
		return decideOwned(p, r, in)
	case strings.HasPrefix(owner, api.PrefixSource):
		return decideForeign(p, r, in.Now)
	default:
		return decideOthers(p, r, in)
	}
}

// decideAbsent handles a project that does not exist.
func decideAbsent(p *Plan, r *Row, now time.Time) Step {
	switch o := r.override(now); o.GetScope() {
	case api.OverrideDeletion:
		return keep(r, api.ClaimOverridden, api.ClaimOverridden, overrideText(o, "held down")+"; git would create it")
	case api.OverrideSpec:
		return keep(r, api.ClaimOverridden, api.ClaimOverridden, overrideText(o, "overridden")+"; git would create it")
	}
	if why, yes := r.expired(now); yes {
		return keep(r, api.ClaimExpired, api.ClaimExpired, why)
	}
	if at := r.Claim.Spec.GetProject().GetSpec().GetExpireAt(); at != nil {
		p.Wake(at.AsTime())
	}
	return attempt(p, r, now, Step{Action: Create, Reason: api.ReasonNew})
}

// decideGoing handles a project that is being deleted: it can be created again only after that.
func decideGoing(r *Row, in Input) Step {
	if r.owner() == Owner(in.Source.Metadata.Name) {
		if o := r.override(in.Now); o != nil && o.Scope == api.OverrideDeletion {
			return keep(r, api.ReasonDeleting, api.ClaimOverridden, overrideText(o, "held down"))
		}
		if r.Project.GetStatus().GetDeletionReason() == api.ReasonExpired {
			return keep(r, api.ReasonDeleting, api.ClaimExpired, "expired; it is being deleted")
		}
	}
	return keep(r, api.ReasonDeleting, "", "")
}

// decideOwned handles a project that this source owns.
func decideOwned(p *Plan, r *Row, in Input) Step {
	now := in.Now
	if o := r.override(now); Overrules(o) {
		s := keep(r, api.ClaimOverridden, api.ClaimOverridden, overrideText(o, "overridden"))
		s.Diff = api.Diff(r.Project, r.Claim.Spec.Project)
		s.Message += gitWould(s.Diff)
		return s
	}
	if r.Live == r.Want {
		if in.Check || r.Status.GetState() == api.ClaimNotAllowed {
			return attempt(p, r, in.Now, Step{Action: Check, Reason: api.ReasonAllowed})
		}
		return keep(r, api.ReasonSettled, api.ClaimApplied, "")
	}
	diff := api.Diff(r.Project, r.Claim.Spec.Project)
	if stalled(r, now) {
		s := keep(r, api.ClaimStalled, api.ClaimStalled, r.Status.GetMessage())
		if r.Status.GetState() != api.ClaimStalled {
			s.Message = fmt.Sprintf("the same manifest was applied %d times within a minute and something keeps changing the project back: %s; "+
				"find out who changes it, then change the manifest", breakerLimit, DiffText(diff))
		}
		s.Diff = diff
		return s
	}
	reason := api.ReasonChanged
	switch {
	case r.Status.GetState() == api.ClaimOverridden:
		reason = api.ReasonOverrideEnded
	case r.Status.GetAppliedHash() == r.Want:
		reason = api.ReasonDrift
	}
	return attempt(p, r, now, Step{Action: Update, Reason: reason, Diff: diff})
}

// stalled reports whether the loop breaker stops the claim. A change of the manifest resets it.
func stalled(r *Row, now time.Time) bool {
	if r.Status.GetState() == api.ClaimStalled && r.Status.AppliedHash == r.Want {
		return true
	}
	if r.Memory == nil || r.Memory.Hash != r.Want {
		return false
	}
	recent := 0
	for _, t := range r.Memory.Applied {
		if age := now.Sub(t); age >= 0 && age < breakerWindow {
			recent++
		}
	}
	return recent >= breakerLimit
}

// decideOthers handles a project that a person owns, or nobody, as after the deletion of its source.
func decideOthers(p *Plan, r *Row, in Input) Step {
	reason, whose, policy := api.ReasonAdoptAlways, "belongs to "+r.owner(), api.AdoptAlways
	if r.owner() == "" {
		reason, whose, policy = api.ReasonUnowned, "nobody owns it", api.AdoptIfUnowned
	}
	if Adopts(r.owner(), AdoptPolicy(in.Source)) {
		return takeOver(p, r, in.Now, Step{Action: Adopt, Reason: reason})
	}
	return keep(r, api.ClaimAdoptionRequired, api.ClaimAdoptionRequired, fmt.Sprintf("project %s exists and %s; "+
		"`caractrl adopt %s`, set adopt: %s in the source, or delete the project", r.Name, whose, r.Name, policy))
}

// decideForeign handles a project of another source: the first owner keeps it until it releases it.
func decideForeign(p *Plan, r *Row, now time.Time) Step {
	if why, yes := r.letGo(); !yes {
		return keep(r, api.ClaimConflict, api.ClaimConflict, fmt.Sprintf("project %s is owned by %s (%s); declare it in one source only",
			r.Name, r.owner(), why))
	}
	return takeOver(p, r, now, Step{Action: HandOver, Reason: api.ReasonLetGo, From: r.owner()})
}

// Adopts reports whether a source with an adopt policy takes a project that no source owns. An empty owner means a project
// without an owner. This is the only place of the rule: the server checks it again in the transaction that applies.
func Adopts(owner, adopt string) bool {
	return adopt == api.AdoptAlways || owner == "" && adopt != api.AdoptNever
}

// takeOver makes this source the owner of an existing project, unless the project has expired.
func takeOver(p *Plan, r *Row, now time.Time, s Step) Step {
	if why, yes := r.expired(now); yes {
		return keep(r, api.ClaimExpired, api.ClaimExpired, why)
	}
	s.Diff = api.Diff(r.Project, r.Claim.Spec.Project)
	return attempt(p, r, now, s)
}

// attempt returns the apply step s, unless the same step was rejected and its retry time has not come.
func attempt(p *Plan, r *Row, now time.Time, s Step) Step {
	m := r.Memory
	waits := m != nil && now.Before(m.Retry) && m.Retry.Sub(now) <= refusedMost // a longer wait comes from a changed clock
	if waits && m.Failures > 0 && m.Hash == r.Want && m.Base == r.base() {
		p.Wake(m.Retry)
		k := keep(r, m.State, m.State, m.Message)
		k.Diff = s.Diff
		return k
	}
	s.Project, s.UID, s.State, s.Row = r.Name, r.UID(), api.ClaimApplied, *r
	return s
}

func keep(r *Row, reason, state, message string) Step {
	return Step{Action: Keep, Project: r.Name, Reason: reason, UID: r.UID(), State: state, Message: message, Row: *r}
}

// AdoptPolicy returns a source's policy for existing projects: its spec's adopt, or the default.
func AdoptPolicy(s *carav1.Source) string {
	return cmp.Or(s.GetSpec().GetAdopt(), api.AdoptIfUnowned)
}

// gitWould describes what git would change without the override.
func gitWould(diff []*carav1.FieldDiff) string {
	if len(diff) == 0 {
		return "; git says the same"
	}
	return "; git would change " + DiffText(diff)
}
