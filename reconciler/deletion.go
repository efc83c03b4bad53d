package reconciler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caravanserai/cara/api"
)

// planDeletion lets go of everything that a deleted source owns. With onDelete Orphan the server takes the owner off
// the source's projects when it removes the source. With Delete the projects go first, all but those that another
// source declares: the source stays until those are handed over, since they are not to be deleted.
func planDeletion(p *Plan, in Input) {
	me := ownerName(p.Source)
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
		case r.heir(in.Now) != nil:
			p.Steps = append(p.Steps, keep(r, api.ReasonLeftToOther, "", "it is left to "+api.PrefixSource+r.heir(in.Now).Spec.Source))
		default:
			p.Steps = append(p.Steps, Step{Action: Delete, Project: r.Name, Reason: api.ReasonSourceDeleted, UID: r.uid(), row: *r})
		}
	}
	p.Remove = !waiting
}

// deletionText says what a deleted source waits for.
func deletionText(in Input, p *Plan) string {
	onDelete := in.Source.GetSpec().GetOnDelete()
	if onDelete == "" {
		onDelete = api.OnDeleteOrphan
	}
	text := "the source is being deleted, onDelete: " + onDelete
	var left []string
	for i := range p.Steps {
		if s := &p.Steps[i]; s.Reason == api.ReasonLeftToOther {
			left = append(left, fmt.Sprintf("project %s to be taken over by source/%s", s.Project, s.row.heir(in.Now).GetSpec().GetSource()))
		}
	}
	if len(left) == 0 {
		return text
	}
	slices.Sort(left)
	if len(left) > named {
		left = append(left[:named], fmt.Sprintf("and %d more", len(left)-named))
	}
	return text + "; it waits for " + strings.Join(left, ", ")
}
