package plan

import (
	"github.com/caravanserai/cara/api"
)

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
