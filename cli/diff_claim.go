package cli

import (
	"strings"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// declared compares a project that the source declares with what there is of it.
func (d *declaration) declared(c *carav1.Claim, live *carav1.Project, now time.Time) difference {
	want := c.GetSpec().GetProject()
	if held := c.GetSpec().GetHeld(); held != "" {
		return difference{what: "is kept as it is: " + held, unknown: true}
	}
	if live == nil || api.GoingAway(live) {
		return d.absent(c, live, now)
	}
	diff := api.Diff(live, want)
	change := func(what string) difference { return difference{what: what, diff: diff} }
	switch owner := live.GetMetadata().GetOwner(); {
	case owner == d.owner() && len(diff) == 0:
		return difference{}
	case owner == d.owner():
		if o := d.standing(c, now); o != nil {
			return change(overridden(o, now, "change"))
		}
		return change("would be configured" + trouble(c))
	case strings.HasPrefix(owner, api.PrefixSource):
		return change("stays as it is, it belongs to " + whence(live.GetMetadata()) + trouble(c))
	case d.adopts(owner):
		return change("would be adopted, it belongs to " + api.OrNobody(owner) + trouble(c))
	default:
		return change("stays as it is, it belongs to " + api.OrNobody(owner) + ": caractrl adopt " + claimed(c) + " gives it to the source")
	}
}

// absent is about a project that is declared and not there, or about to go.
func (d *declaration) absent(c *carav1.Claim, live *carav1.Project, now time.Time) difference {
	at := c.GetSpec().GetProject().GetSpec().GetExpireAt()
	expired := at != nil && !at.AsTime().After(now) || c.GetStatus().GetState() == api.ClaimExpired ||
		live.GetStatus().GetDeletionReason() == api.ReasonExpired
	o := d.standing(c, now)
	switch {
	case o != nil:
		return difference{what: overridden(o, now, "create")}
	case expired: // its manifest says that it is gone by now
		return difference{}
	case live != nil:
		return difference{what: "is being deleted: git would create it again"}
	}
	return difference{what: "would be created" + trouble(c)}
}

// left is about a project whose manifest has left the source.
func (d *declaration) left(c *carav1.Claim, live *carav1.Project, now time.Time) difference {
	status := c.GetStatus()
	spec := d.source.GetSpec()
	switch {
	case live == nil, api.GoingAway(live), live.GetMetadata().GetOwner() != d.owner():
		return difference{}
	case c.GetSpec().GetSourceUid() != d.source.GetMetadata().GetUid():
		return difference{what: "is kept: an earlier source of this name declared it"}
	case d.standing(c, now) != nil:
		return difference{what: overridden(d.standing(c, now), now, "delete")}
	case spec != nil && spec.Prune != nil && !*spec.Prune:
		return difference{what: "is kept, it left the source: prune is off"}
	case status.GetState() == api.ClaimPruneBlocked:
		return difference{what: "would be pruned, and is not: the prune is blocked", blocked: status.GetMessage()}
	case status.GetState() == "" && status.GetMessage() != "":
		return difference{what: "is kept, it left the source: " + status.GetMessage()}
	}
	return difference{what: "would be pruned"}
}

func (d *declaration) owner() string { return api.PrefixSource + d.source.GetMetadata().GetName() }

// adopts says whether the source takes over a project of nobody, or of a person.
func (d *declaration) adopts(owner string) bool {
	adopt := d.source.GetSpec().GetAdopt()
	return adopt == api.AdoptAlways || owner == "" && adopt != api.AdoptNever
}

// trouble is what became of the last try to apply a claim, where that went wrong.
func trouble(c *carav1.Claim) string {
	switch state := c.GetStatus().GetState(); state {
	case api.ClaimRefused, api.ClaimNotAllowed, api.ClaimStalled:
		return ", and is not (" + state + "): " + c.GetStatus().GetMessage()
	}
	return ""
}
