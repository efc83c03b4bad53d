package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// InForce reports whether an override is active. An override that ends with git's next change is active while a source
// declares what it was made against. declared are the claim hashes that sources declare for the project now, with "" for a
// source that declares nothing. Without any, git's declaration is unknown, and the override is active.
func InForce(o *carav1.Override, now time.Time, declared ...string) bool {
	if o == nil || EndedByTime(o, now) {
		return false
	}
	return o.GetUntilHash() == "" || len(declared) == 0 || slices.Contains(declared, o.GetUntilHash())
}

// EndedByTime reports whether an override's end has passed.
func EndedByTime(o *carav1.Override, now time.Time) bool {
	return o.GetUntil() != nil && !o.GetUntil().AsTime().After(now)
}

// Overrules reports whether an override prevents git from changing or creating the project. An extension of the expiry does
// not.
func Overrules(o *carav1.Override) bool {
	return o.GetScope() == api.OverrideSpec || o.GetScope() == api.OverrideDeletion
}

// override returns the active override, or nil.
func (r *Row) override(now time.Time) *carav1.Override {
	if r.Override == nil || EndedByTime(r.Override, now) || r.endedByGit() {
		return nil
	}
	return r.Override
}

// endedByGit reports whether git has changed the project since the override was made. The declarations of all sources
// count, because a project that an override keeps deleted has no owner.
func (r *Row) endedByGit() bool {
	if r.Override.GetUntilHash() == "" {
		return false
	}
	declared := []string{""}
	for _, c := range append([]*carav1.Claim{r.Claim}, r.Rivals...) {
		if c.GetSpec().GetPresent() {
			declared = append(declared, c.GetSpec().GetHash())
		}
	}
	return !InForce(&carav1.Override{UntilHash: r.Override.GetUntilHash()}, time.Time{}, declared...)
}

func overrideText(o *carav1.Override, what string) string {
	until := "until it is cleared"
	switch {
	case o.UntilHash != "":
		until = "until git's next change"
	case o.Until != nil:
		until = "until " + stamp(o.Until)
	}
	return fmt.Sprintf("%s by %s %s: %s", what, o.Actor, until, o.Reason)
}
