package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

// pruneFloor is how many projects a source may always prune, whatever its limit.
const pruneFloor = 3

// PruneInput is the input of PruneGate.
type PruneInput struct {
	Source *carav1.Source
	Now    time.Time
	// Gone are the rows of this source's inventory whose manifest is no longer in the source.
	Gone []Row
	// Present counts the projects that the source declares.
	Present int
	// Held are those of the present projects whose manifest could not be read at its last place: the file has an error, or
	// the path is not read.
	Held []Row
	// Owned counts the projects that the source owns.
	Owned int
}

// Verdict is the result of PruneGate.
type Verdict struct {
	// Allowed is true if everything in Delete may be deleted now.
	Allowed bool
	// Reasons are all reasons against the deletion.
	Reasons []string
	// Delete are the projects that are no longer in the source and that nothing else protects.
	Delete []string
	// Spared are projects that are no longer in the source and are not deleted, whatever the verdict is.
	Spared []Spared

	rows []Row // of Delete
}

// Spared is one project that is not deleted, and why.
type Spared struct {
	Project string
	// Reason is one word. With ReasonSettled the source's inventory releases the project.
	Reason  string
	Message string

	row Row
}

// PruneGate decides whether projects that are no longer in a source may be deleted. Each project must be in this source's
// inventory with its UID, still be owned by the source, and not be claimed by another one. Then the limits for the whole
// set apply.
func PruneGate(in PruneInput) Verdict {
	var v Verdict
	for i := range in.Gone {
		r := &in.Gone[i]
		if reason, message := spare(in, r); reason != "" {
			v.Spared = append(v.Spared, Spared{Project: r.Name, Reason: reason, Message: message, row: *r})
			continue
		}
		v.rows = append(v.rows, *r)
	}
	slices.SortFunc(v.rows, func(a, b Row) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(v.Spared, func(a, b Spared) int { return strings.Compare(a.Project, b.Project) })
	for i := range v.rows {
		v.Delete = append(v.Delete, v.rows[i].Name)
	}
	if len(v.Delete) == 0 {
		if s := in.Source.GetStatus().GetSnapshot(); len(in.Held) > 0 && Whole(s) {
			v.Reasons = []string{notRead(in.Held)} // nothing will be deleted, and no other message explains why
		}
		return v
	}
	n := len(v.Delete) // includes projects whose UID is not in the inventory yet, so that a set cannot pass the limit in parts
	for _, s := range v.Spared {
		if s.Reason == api.ReasonInventory {
			n++
		}
	}
	v.Reasons = blocked(in, n)
	v.Allowed = len(v.Reasons) == 0
	return v
}

// spare returns why one project is not deleted, or "".
func spare(in PruneInput, r *Row) (reason, message string) {
	me := in.Source.GetMetadata()
	switch {
	case r.Claim.GetSpec().GetSourceUid() != me.GetUid():
		return api.ReasonSettled, "it is in the inventory of an earlier source of the same name"
	case r.Project == nil:
		return api.ReasonSettled, "it is gone"
	case r.owner() != Owner(me.GetName()):
		return api.ReasonSettled, "it belongs to " + api.OrNobody(r.owner())
	case r.going():
		return api.ReasonDeleting, "it is being deleted"
	case r.Heir(in.Now) != nil:
		c := r.Heir(in.Now).Spec
		return api.ReasonLeftToOther, fmt.Sprintf("it is left to source/%s, which declares it in %s", c.Source, api.Place(c.File, c.Line, 0))
	}
	if o := r.override(in.Now); Overrules(o) {
		return api.ClaimOverridden, overrideText(o, "overridden") + "; git would delete it"
	}
	if r.Status.GetProjectUid() != r.UID() {
		// The project was applied, but the process ended before the inventory had its UID. The UID is written first,
		// because only projects in the stored inventory are deleted.
		return api.ReasonInventory, "it is taken into the inventory"
	}
	return "", ""
}

// blocked returns the reasons against deleting n projects.
func blocked(in PruneInput, n int) (reasons []string) {
	spec, status := in.Source.GetSpec(), in.Source.GetStatus()
	snapshot := status.GetSnapshot()
	deny := func(yes bool, format string, args ...any) {
		if yes {
			reasons = append(reasons, fmt.Sprintf(format, args...))
		}
	}
	deny(spec.GetSuspend(), "the source is suspended")
	deny(spec.Prune != nil && !*spec.Prune, api.PruneOff)
	deny(snapshot == nil || status.GetAttemptedRevision() == "", "this is the first pass over the source")
	if snapshot != nil {
		errors := max(int(snapshot.ErrorCount), len(snapshot.FileErrors))
		deny(errors > 0, "%s", FileErrors(snapshot, errors))
		deny(errors == 0 && !snapshot.Complete, "the snapshot at %s did not load whole", api.ShortRevision(snapshot.Revision))
		deny(errors == 0 && len(in.Held) > 0, "%s", notRead(in.Held))
	}
	if c := api.FindCondition(status.GetConditions(), api.CondFetchFailed); c != nil && c.Status == api.StatusTrue {
		deny(true, "the source cannot be read now (%s)", c.Reason)
	}
	deny(in.Present == 0 && !spec.GetAllowEmpty(), "the source declares no project at all; set allowEmpty: true if that is meant")
	limit := pruneLimit(spec, in.Owned)
	deny(n > limit && !confirmed(status), "it would delete %d of %d projects and pruneLimit allows %d; `caractrl confirm %s@%s` lets exactly this revision do it",
		n, in.Owned, limit, in.Source.GetMetadata().GetName(), api.ShortRevision(snapshot.GetRevision()))
	return reasons
}

// notRead lists the projects whose paths exist but are not read, the first few with path and reason.
func notRead(held []Row) string {
	const most = 3
	held = slices.Clone(held)
	slices.SortFunc(held, func(a, b Row) int { return strings.Compare(a.Name, b.Name) })
	var lines []string
	for i := range held[:min(most, len(held))] {
		c := held[i].Claim.GetSpec()
		lines = append(lines, fmt.Sprintf("%s (%s): %s", held[i].Name, api.Place(c.GetFile(), c.GetLine(), 0), text.Clip(c.GetHeld(), 300)))
	}
	if n := len(held) - most; n > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", n))
	}
	return "what is not read is not gone: " + strings.Join(lines, "; ") + "; remove the path, or put it back"
}

// FileErrors returns the number of errors in a snapshot's files and the first error.
func FileErrors(s *carav1.Snapshot, n int) string {
	out := fmt.Sprintf("%s in the files at %s", text.Count(int(n), "error"), api.ShortRevision(s.Revision))
	if len(s.FileErrors) > 0 {
		e := s.FileErrors[0]
		out += fmt.Sprintf(", the first in %s: %s", api.Place(e.File, e.Line, 0), text.Clip(e.Message, 200))
	}
	return out
}

// pruneLimit returns how many of the owned projects one reconciliation may delete.
func pruneLimit(spec *carav1.SourceSpec, owned int) int {
	percent := api.DefaultPruneLimit
	if spec != nil && spec.PruneLimit != nil {
		percent = int(spec.GetPruneLimit())
	}
	return max(pruneFloor, owned*percent/100)
}

// confirmed reports whether a person confirmed the prune of this revision, by its full ID or a prefix.
func confirmed(s *carav1.SourceStatus) bool {
	const shortest = 7
	c := s.GetConfirmedRevision()
	return len(c) >= shortest && strings.HasPrefix(s.GetSnapshot().GetRevision(), c)
}

// steps converts the verdict to steps of the plan.
func (v *Verdict) steps() []Step {
	var steps []Step
	for i := range v.rows {
		r := &v.rows[i]
		if v.Allowed {
			steps = append(steps, Step{Action: Delete, Project: r.Name, Reason: api.ReasonPruned, UID: r.UID(), Row: *r})
			continue
		}
		steps = append(steps, keep(r, api.ClaimPruneBlocked, api.ClaimPruneBlocked, strings.Join(v.Reasons, "; ")))
	}
	for i := range v.Spared {
		s := &v.Spared[i]
		step := keep(&s.row, s.Reason, "", s.Message)
		switch s.Reason {
		case api.ReasonSettled:
			step.Action = Forget
		case api.ClaimOverridden:
			step.State = api.ClaimOverridden
		case api.ReasonInventory:
			step.State = api.ClaimApplied
		}
		steps = append(steps, step)
	}
	return steps
}
