package objects

import (
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// applyProject is the applier of projects: a person's declaration, or a source's.
func applyProject(t *state.Tx, m proto.Message, how applyTerms) (before, after proto.Message, err error) {
	in := m.(*carav1.Project)
	var old, p *carav1.Project
	if how.source != "" {
		old, p, err = declareFor(t, in, how)
	} else {
		if err := mustMatch(t, api.KindProject, in, in.GetMetadata().GetResourceVersion()); err != nil {
			return nil, nil, err
		}
		old, p, err = DeclareProject(t, in, how.override)
	}
	if err != nil {
		return nil, nil, err
	}
	if old == nil {
		return nil, p, nil
	}
	return old, p, nil
}

// declareFor is a source's word on a project. Where it says what the project is already, nothing is written, also
// where only the commit is another one.
func declareFor(t *state.Tx, in *carav1.Project, how applyTerms) (before, after *carav1.Project, err error) {
	owner, name := api.PrefixSource+how.source, in.GetMetadata().GetName()
	origin := proto.CloneOf(in.GetMetadata().GetOrigin())
	if origin == nil {
		origin = &carav1.Origin{}
	}
	origin.Source = how.source
	if err := declaredBySource(t, how.source, in); err != nil {
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
	if err := mayTake(old, owner, how.adopt, how.handOver); err != nil {
		return nil, nil, err
	}
	p := proto.CloneOf(old)
	changed, err := redeclare(t, old, p, in, "changed by "+whence(owner, origin))
	if err != nil {
		return nil, nil, err
	}
	if old.GetMetadata().GetOwner() != owner {
		if api.GoingAway(old) {
			return nil, nil, errTerminating(old)
		}
		RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonAdopted, "now belongs to "+whence(owner, origin)+", before to "+api.OrNobody(old.GetMetadata().GetOwner()))
		p.Metadata.Owner, changed = owner, true
	}
	if o == nil && api.IsTrue(p.GetStatus().GetConditions(), api.CondOverridden) { // its record has just ended, or is gone
		p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), api.CondOverridden)
		setExpiry(t, p)
		if !changed {
			t.Put(p)
			return old, old, nil
		}
	}
	if !changed {
		return old, old, nil
	}
	p.Metadata.Origin = origin
	if p.GetMetadata().GetGeneration() != old.GetMetadata().GetGeneration() {
		keepRevision(t, p, "")
	}
	t.Put(p)
	return old, p, nil
}

// yieldsToGit returns the override of a project that does not keep git from changing it, or nil; one that does is the
// refusal. An override that has ended goes, and an extension that git's own expiry has caught up with.
func yieldsToGit(t *state.Tx, in *carav1.Project) (*carav1.Override, error) {
	name := in.GetMetadata().GetName()
	o, ok := state.Read[*carav1.Override](t, name)
	if !ok {
		return nil, nil
	}
	if why := endedByGit(t, o, in); why != "" {
		endOverride(t, o, why)
		return nil, nil
	}
	if o.GetScope() == api.OverrideExpiry {
		return o, nil
	}
	return nil, api.Overridden("project %q: %s", name, overrideText(o))
}

// endedByGit says why an override no longer stands now that git says in; empty where it stands.
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
