package reconciler

import (
	"time"

	"github.com/caravanserai/cara/api"
)

// handOverGrace is how long a deleted source waits for others that claim its projects to take them over.
const handOverGrace = 30 * time.Second

// planDeletion lets go of everything that a deleted source owns. With onDelete Orphan the server takes the owner off
// the source's projects when it removes the source. With Delete the projects go first, all but those that another
// source claims: those are handed over, and what was not taken in time is left without an owner, never deleted.
func planDeletion(p *Plan, in Input) {
	me := ownerName(p.Source)
	p.Owned = countOwned(in)
	if in.Source.GetSpec().GetOnDelete() != api.OnDeleteDelete {
		p.Remove = true
		return
	}
	grace := in.Source.Metadata.DeletionTimestamp.AsTime().Add(handOverGrace)
	waiting := false
	for i := range in.Rows {
		r := &in.Rows[i]
		switch {
		case r.Project == nil, r.owner() != me:
		case r.going():
			waiting = true
			p.Steps = append(p.Steps, keep(r, ReasonDeleting, "", "it is being deleted"))
		case len(r.Rivals) > 0:
			if in.Now.Before(grace) {
				waiting = true
				p.wake(grace)
			}
			p.Steps = append(p.Steps, keep(r, ReasonLeftToOther, "", "it is left to source/"+r.Rivals[0].Spec.Source))
		default:
			waiting = true
			p.Steps = append(p.Steps, Step{Action: Delete, Project: r.Name, Reason: ReasonSourceDeleted, UID: r.uid(), row: *r})
		}
	}
	p.Remove = !waiting
}
