package rules

import (
	"cmp"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// ApplyProject applies a project that a person or a source declares.
func ApplyProject(t *state.Tx, m proto.Message, how ApplyTerms) (before, after proto.Message, err error) {
	in := m.(*carav1.Project)
	if how.Source != "" {
		return declareFor(t, in, how)
	}
	if err := MustMatch(t, api.KindProject, in, in.GetMetadata().GetResourceVersion()); err != nil {
		return nil, nil, err
	}
	return DeclareProject(t, in, how.Override)
}

// declareFor applies a source's declaration of a project. If the project already matches it, nothing is written, even if
// the commit is a different one.
func declareFor(t *state.Tx, in *carav1.Project, how ApplyTerms) (before, after *carav1.Project, err error) {
	owner, name := api.PrefixSource+how.Source, in.GetMetadata().GetName()
	origin := cmp.Or(proto.CloneOf(in.GetMetadata().GetOrigin()), &carav1.Origin{})
	origin.Source = how.Source
	if err := DeclaredBySource(t, how.Source, in); err != nil {
		return nil, nil, err
	}
	o, err := yieldsToGit(t, in)
	if err != nil {
		return nil, nil, err
	}
	old, exists := state.Read[*carav1.Project](t, name)
	if !exists {
		p, err := createProject(t, in, owner, origin)
		return nil, p, err
	}
	if err := MayTake(old, owner, how.Adopt, how.HandOver); err != nil {
		return nil, nil, err
	}
	p := proto.CloneOf(old)
	p.Metadata.Owner = owner // before its volumes: data that is kept for the source is for this project, too
	changed, err := redeclare(t, old, p, in, "changed by "+Whence(owner, origin))
	if err != nil {
		return nil, nil, err
	}
	if old.GetMetadata().GetOwner() != owner {
		if api.GoingAway(old) {
			return nil, nil, ErrTerminating(old)
		}
		RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonAdopted, "now belongs to "+Whence(owner, origin)+", before to "+api.OrNobody(old.GetMetadata().GetOwner()))
		changed = true
		OwnVolumes(t, p)
	}
	ended := o == nil && api.IsTrue(p.GetStatus().GetConditions(), api.CondOverridden)
	if ended { // its override has ended or no longer exists
		p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), api.CondOverridden)
		SetExpiry(t, p)
	}
	if !changed {
		if ended {
			t.Put(p)
		}
		return old, old, nil
	}
	p.Metadata.Origin = origin
	if p.GetMetadata().GetGeneration() != old.GetMetadata().GetGeneration() {
		KeepRevision(t, p, "")
	}
	t.Put(p)
	return old, p, nil
}

// yieldsToGit returns an error if the project's override prevents git from changing it. Otherwise it returns the override,
// or nil. It removes an override that has ended, and an extension that is no longer than git's own expiry.
func yieldsToGit(t *state.Tx, in *carav1.Project) (*carav1.Override, error) {
	name := in.GetMetadata().GetName()
	o, ok := state.Read[*carav1.Override](t, name)
	if !ok {
		return nil, nil
	}
	if why := endedByGit(t, o, in); why != "" {
		EndOverride(t, o, why)
		return nil, nil
	}
	if o.GetScope() == api.OverrideExpiry {
		return o, nil
	}
	return nil, api.Overridden("project %q: %s", name, overrideText(o))
}

// endedByGit returns why git's declaration ends an override, or "" if the override still applies.
func endedByGit(t *state.Tx, o *carav1.Override, in *carav1.Project) string {
	declared := in.GetSpec().GetExpireAt()
	switch {
	case !plan.InForce(o, t.Now):
		return "its time is over"
	case !plan.InForce(o, t.Now, api.ClaimHash(in)):
		return "git has changed the project"
	case o.GetScope() == api.OverrideExpiry && (declared == nil || !declared.AsTime().Before(o.GetExpireAt().AsTime())):
		return "git lets the project live longer"
	}
	return ""
}

// ApplyTerms are the parameters of an Apply request.
type ApplyTerms struct {
	Source   string // empty if a person applies
	Adopt    string
	HandOver []string
	Override *carav1.OverrideTerms
}
