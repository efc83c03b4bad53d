package apiserver

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// applyProject is the applier of projects: a person's declaration, or a source's.
func (s *Server) applyProject(t *tx, m proto.Message, how applyTerms) (before, after proto.Message, err error) {
	in := m.(*carav1.Project)
	var old, p *carav1.Project
	if how.source != "" {
		old, p, err = t.declareFor(in, how)
	} else {
		if err := t.mustMatch(api.KindProject, in, in.GetMetadata().GetResourceVersion()); err != nil {
			return nil, nil, err
		}
		old, p, err = t.declare(in, how.override)
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
func (t *tx) declareFor(in *carav1.Project, how applyTerms) (before, after *carav1.Project, err error) {
	owner, name := sourcePrefix+how.source, in.GetMetadata().GetName()
	origin := proto.CloneOf(in.GetMetadata().GetOrigin())
	if origin == nil {
		origin = &carav1.Origin{}
	}
	origin.Source = how.source
	o, err := t.gitsSay(in)
	if err != nil {
		return nil, nil, err
	}
	old, exists := read[*carav1.Project](t, name)
	if !exists {
		p, err := t.create(in, owner, origin)
		return nil, p, err
	}
	if err := mayTake(old, owner, how.adopt, how.handOver); err != nil {
		return nil, nil, err
	}
	p := proto.CloneOf(old)
	changed, err := t.redeclare(old, p, in, "changed by "+whence(owner, origin))
	if err != nil {
		return nil, nil, err
	}
	if old.GetMetadata().GetOwner() != owner {
		if phase := old.GetStatus().GetPhase(); phase == api.PhaseTerminating || phase == api.PhaseTerminated {
			return nil, nil, errTerminating(old)
		}
		t.event(refTo(p), eventNormal, "Adopted", "now belongs to "+whence(owner, origin)+", before to "+orNobody(old.GetMetadata().GetOwner()))
		p.Metadata.Owner, changed = owner, true
	}
	if !changed {
		return old, old, nil
	}
	p.Metadata.Origin = origin
	if p.GetMetadata().GetGeneration() != old.GetMetadata().GetGeneration() {
		t.remember(p, "")
	}
	t.reconcileExpiry(p, o)
	t.put(p)
	return old, p, nil
}

// gitsSay returns the override of a project that does not keep git from changing it, or nil; one that does is the
// refusal. An override that has ended goes.
func (t *tx) gitsSay(in *carav1.Project) (*carav1.Override, error) {
	name := in.GetMetadata().GetName()
	o, ok := read[*carav1.Override](t, name)
	switch {
	case !ok:
		return nil, nil
	case !standing(o, t.now, api.ClaimHash(in)):
		t.endOverride(name)
		return nil, nil
	case o.GetScope() == scopeExpiry:
		return o, nil
	}
	return nil, api.Errorf(codes.FailedPrecondition, titleOverridden, "project %q: %s", name, overrideText(o))
}

// endOverride takes an override away whose time has come.
func (t *tx) endOverride(name string) {
	t.remove(api.KindOverride, name)
	t.event(&carav1.ObjectRef{Kind: api.KindProject, Name: name}, eventNormal, "OverrideEnded", "git has its say again")
}

// reconcileExpiry lays a standing extension over what git says, or ends it where git now says later.
func (t *tx) reconcileExpiry(p *carav1.Project, o *carav1.Override) {
	if o == nil {
		p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), api.CondOverridden)
		return
	}
	declared := p.GetSpec().GetExpireAt()
	if declared == nil || declared.AsTime().After(o.GetExpireAt().AsTime()) {
		t.endOverride(p.GetMetadata().GetName())
		p.Status.Conditions, _ = api.RemoveCondition(p.GetStatus().GetConditions(), api.CondOverridden)
		return
	}
	p.Status.ExpireAt = timestamppb.New(o.GetExpireAt().AsTime())
}

func orNobody(owner string) string {
	if owner == "" {
		return "nobody"
	}
	return owner
}
