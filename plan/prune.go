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

// A prune of so many projects is never stopped by the limit, and the limit is so many percent where the source has none.
const (
	pruneFloor        = 3
	defaultPruneLimit = 30
)

// PruneInput is all that the gate decides by.
type PruneInput struct {
	Source *carav1.Source
	Now    time.Time
	// Gone are the rows of this source's inventory whose manifest left the source.
	Gone []Row
	// Present counts the projects that the source declares.
	Present int
	// Held are those of them that are declared no more where they were, though the place is still there: their file is
	// broken, or their path is not read.
	Held []Row
	// Owned counts the projects that the source owns.
	Owned int
}

// Verdict is what the gate says.
type Verdict struct {
	// Allowed is true where everything in Delete may go now.
	Allowed bool
	// Reasons say why not; all of them.
	Reasons []string
	// Delete are the projects that left the source and that nothing else protects.
	Delete []string
	// Spared are projects that left the source and are not deleted whatever the gate says.
	Spared []Spared

	rows []Row // of Delete
}

// Spared is one project that is not deleted, and why.
type Spared struct {
	Project string
	// Reason is a word. With ReasonSettled the source's inventory releases the project.
	Reason  string
	Message string

	row Row
}

// PruneGate decides whether what left a source may be deleted. Each project must be in this source's inventory by its
// uid, be owned by it still, and be claimed by nobody else; then the set as a whole must pass.
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
			v.Reasons = []string{notRead(in.Held)} // nothing is to be deleted, and nobody else would say why
		}
		return v
	}
	n := len(v.Delete) // and what is only not named by the inventory yet: a set is not let through in parts
	for _, s := range v.Spared {
		if s.Reason == api.ReasonInventory {
			n++
		}
	}
	v.Reasons = blocked(in, n)
	v.Allowed = len(v.Reasons) == 0
	return v
}

// spare says why one project is not to be deleted, or nothing.
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
		// The project was applied and the process ended before the inventory had its uid. It is written first: only
		// what the stored inventory names is deleted.
		return api.ReasonInventory, "it is taken into the inventory"
	}
	return "", ""
}

// blocked lists what stands against deleting n projects.
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

// notRead names the projects whose paths are there and are not read, the first few with the path and the reason.
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

// FileErrors says how many errors the files of a snapshot have, and names the first.
func FileErrors(s *carav1.Snapshot, n int) string {
	out := fmt.Sprintf("%s in the files at %s", text.Count(int(n), "error"), api.ShortRevision(s.Revision))
	if len(s.FileErrors) > 0 {
		e := s.FileErrors[0]
		out += fmt.Sprintf(", the first in %s: %s", api.Place(e.File, e.Line, 0), text.Clip(e.Message, 200))
	}
	return out
}

// pruneLimit is how many of owned projects one pass may delete.
func pruneLimit(spec *carav1.SourceSpec, owned int) int {
	percent := defaultPruneLimit
	if spec.GetPruneLimit() != 0 || (spec != nil && spec.PruneLimit != nil) {
		percent = int(spec.GetPruneLimit())
	}
	return max(pruneFloor, owned*percent/100)
}

// confirmed reports whether a person released the prune of this very revision, named in full or by its beginning.
func confirmed(s *carav1.SourceStatus) bool {
	const shortest = 7
	c := s.GetConfirmedRevision()
	return len(c) >= shortest && strings.HasPrefix(s.GetSnapshot().GetRevision(), c)
}

// steps turns the verdict into steps of the plan.
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
	for _, s := range v.Spared {
		steps = append(steps, s.step())
	}
	return steps
}

func (s Spared) step() Step {
	step := keep(&s.row, s.Reason, "", s.Message)
	switch s.Reason {
	case api.ReasonSettled:
		step.Action = Forget
	case api.ClaimOverridden:
		step.State = api.ClaimOverridden
	case api.ReasonInventory:
		step.State = api.ClaimApplied
	}
	return step
}
