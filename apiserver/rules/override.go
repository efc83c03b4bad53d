package rules

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// overrideSpec allows a person's change of a project that a source owns, by an existing override or by new terms. p is the
// transaction's own copy of the project.
func overrideSpec(t *state.Tx, p *carav1.Project, terms *carav1.OverrideTerms) error {
	o, _ := state.Read[*carav1.Override](t, p.GetMetadata().GetName())
	if terms == nil {
		if o.GetScope() == api.OverrideSpec && plan.InForce(o, t.Now) {
			return nil
		}
		return errSourceOwned(p)
	}
	o, err := RecordOverride(t, p.GetMetadata().GetName(), SourceOf(p), api.OverrideSpec, terms)
	if err != nil {
		return err
	}
	ShowOverride(t, p, o)
	return nil
}

// OverrideProject lets a person's changes of a project of a source stay, instead of what git says.
func OverrideProject(t *state.Tx, name string, terms *carav1.OverrideTerms) (*carav1.Override, error) {
	old, ok := state.Read[*carav1.Project](t, name)
	switch {
	case !ok:
		return nil, NotFound(api.KindProject, name)
	case terms == nil:
		return nil, api.Invalid("the request", api.Field("terms", "are required: say why, and for how long"))
	case SourceOf(old) == "":
		return nil, api.BadState("project %q belongs to no source: there is nothing to override, change it", name)
	}
	p := proto.CloneOf(old)
	out, err := RecordOverride(t, name, SourceOf(old), api.OverrideSpec, terms)
	if err != nil {
		return nil, err
	}
	Derive(t, p)
	ShowOverride(t, p, out)
	t.Put(p)
	return out, nil
}

// RecordOverride writes an override for a project of a source.
func RecordOverride(t *state.Tx, name, source, scope string, terms *carav1.OverrideTerms) (*carav1.Override, error) {
	until, hash, err := OverrideEnd(t, name, source, terms)
	if err != nil {
		return nil, err
	}
	o := &carav1.Override{
		Metadata: &carav1.ObjectMeta{Name: name, CreationTimestamp: timestamppb.New(t.Now)},
		Scope:    scope, Actor: t.Actor.Name, Reason: terms.GetReason(),
		Since: timestamppb.New(t.Now), Until: until, UntilHash: hash,
	}
	if before, ok := state.Read[*carav1.Override](t, name); ok && scope == api.OverrideSpec && plan.InForce(before, t.Now) {
		o.ExpireAt = before.GetExpireAt() // overriding the spec must not end an extension
	}
	t.Put(o)
	RecordEvent(t, &carav1.ObjectRef{Kind: api.KindProject, Name: name}, api.EventNormal, api.ReasonOverridden, overrideText(o))
	return o, nil
}

// OverrideEnd returns when an override ends.
func OverrideEnd(t *state.Tx, name, source string, terms *carav1.OverrideTerms) (*timestamppb.Timestamp, string, error) {
	given := 0
	for _, is := range []bool{terms.GetUntil() != nil, terms.GetFor() != nil, terms.GetUntilNextChange()} {
		if is {
			given++
		}
	}
	invalid := func(field, format string, args ...any) (*timestamppb.Timestamp, string, error) {
		return nil, "", api.Invalid("the override", api.Field(field, format, args...))
	}
	switch {
	case terms.GetReason() == "":
		return invalid("override.reason", "is required: say why (--reason WHY)")
	case given > 1:
		return invalid("override", "has more than one of until, for and untilNextChange; give one")
	case terms.GetUntil() != nil:
		if !terms.GetUntil().AsTime().After(t.Now) {
			return invalid("override.until", "is in the past")
		}
		return terms.GetUntil(), "", nil
	case terms.GetFor() != nil:
		if terms.GetFor().AsDuration() <= 0 {
			return invalid("override.for", "is %s; it must be more than nothing", terms.GetFor().AsDuration())
		}
		return timestamppb.New(t.Now.Add(terms.GetFor().AsDuration())), "", nil
	case terms.GetUntilNextChange():
		claim, ok := state.Read[*carav1.Claim](t, source+"/"+name)
		if !ok {
			return invalid("override.untilNextChange", "has nothing to wait for: source %q does not declare project %q", source, name)
		}
		return nil, claim.GetSpec().GetHash(), nil
	}
	return nil, "", nil
}

// EndOverride removes an override, so that git decides again.
func EndOverride(t *state.Tx, o *carav1.Override, why string) {
	name := o.GetMetadata().GetName()
	t.Remove(api.KindOverride, name)
	RecordEvent(t, &carav1.ObjectRef{Kind: api.KindProject, Name: name}, api.EventNormal, api.ReasonOverrideEnded,
		fmt.Sprintf("%s: git decides again (%s by %s since %s: %s)", why, o.GetScope(), o.GetActor(),
			o.GetSince().AsTime().UTC().Format(time.RFC3339), o.GetReason()))
}

// ShowOverride sets the condition Overridden on the project.
func ShowOverride(t *state.Tx, p *carav1.Project, o *carav1.Override) {
	SetCondition(t, p, &carav1.Condition{Type: api.CondOverridden, Status: api.StatusTrue, Reason: o.GetScope(), Message: overrideText(o)})
}

func overrideText(o *carav1.Override) string {
	until := "until it is cleared"
	switch {
	case o.GetUntil() != nil:
		until = "until " + o.GetUntil().AsTime().UTC().Format(time.RFC3339)
	case o.GetUntilHash() != "":
		until = "until the next change in git"
	}
	return fmt.Sprintf("%s overrides git (%s) %s: %s", o.GetActor(), o.GetScope(), until, o.GetReason())
}

// ClearOverride ends an override. A loop may only end one that has expired: a person may have renewed it since the loop
// read it.
func ClearOverride(t *state.Tx, name string) (*carav1.Override, error) {
	o, ok := state.Read[*carav1.Override](t, name)
	if !ok {
		return nil, NotFound(api.KindOverride, name)
	}
	why := "cleared by " + t.Actor.Name
	if !t.Actor.Person() {
		if why = outlived(t, o); why == "" {
			return nil, api.Conflict("the override of project %q stands: %s", name, overrideText(o))
		}
	}
	EndOverride(t, o, why)
	if old, ok := state.Read[*carav1.Project](t, name); ok {
		p := proto.CloneOf(old)
		Derive(t, p)
		p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), api.CondOverridden)
		t.Put(p)
	}
	return o, nil
}

// outlived returns why an override has ended: its time is over, or no source still declares what the override was made
// against. It returns "" if the override still applies.
func outlived(t *state.Tx, o *carav1.Override) string {
	if !plan.InForce(o, t.Now) {
		return "its time is over"
	}
	if o.GetUntilHash() == "" {
		return ""
	}
	declared := []string{""}
	for _, c := range claimsOn(t, o.GetMetadata().GetName()) {
		if c.GetSpec().GetPresent() {
			declared = append(declared, c.GetSpec().GetHash())
		}
	}
	if plan.InForce(o, t.Now, declared...) {
		return ""
	}
	return "git has changed the project"
}
