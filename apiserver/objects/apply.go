package objects

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	maxApply = 10_000
	// applyTogether is how many objects of one Apply may share a transaction, and applyParallel how many such parts are
	// committed concurrently, so that the store can sync them together.
	applyTogether = 32
	applyParallel = 8
)

// Apply creates or changes each object and returns a result for each. If one object is rejected, the others are still applied.
func (s Applier) Apply(ctx context.Context, req *carav1.ApplyRequest) (*carav1.ApplyResponse, error) {
	how, err := s.applyTerms(ctx, req)
	if err != nil {
		return nil, err
	}
	out := &carav1.ApplyResponse{Results: make([]*carav1.ApplyResult, len(req.GetObjects()))}
	var todo []int
	named := map[string]int{}
	for i, o := range req.GetObjects() {
		m := api.Unwrap(o)
		key := ""
		if m != nil {
			key = state.KindName(m) + "/" + api.Meta(m).GetName()
		}
		if first, twice := named[key]; twice && m != nil {
			out.Results[i] = refused(m, api.Invalid(rules.Describe(m), api.Field(api.Element("objects", i), "is the same object as objects[%d]", first)))
			continue
		}
		named[key] = i
		todo = append(todo, i)
	}
	work, _ := s.Guard.Group(ctx, "Apply", applyParallel)
	for part := range slices.Chunk(todo, applyTogether) {
		work.Go(func() error {
			s.applyPart(ctx, req, how, part, out.Results)
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	return out, ctx.Err()
}

// applyTerms checks the request as a whole.
func (s *Service) applyTerms(ctx context.Context, req *carav1.ApplyRequest) (rules.ApplyTerms, error) {
	actor := identity.ActorOf(ctx)
	how := rules.ApplyTerms{Source: req.GetSource(), Adopt: req.GetAdopt(), HandOver: req.GetHandOver(), Override: req.GetOverride()}
	switch {
	case len(req.GetObjects()) > maxApply:
		return how, api.Invalid("the request", api.Field("objects", "has %d entries, at most %d are allowed; apply them in parts", len(req.GetObjects()), maxApply))
	case actor.Role == api.RoleReconciler && how.Source == "":
		return how, api.Invalid("the request", api.Field("source", "is required: the reconciler applies for a source"))
	case actor.Role != api.RoleReconciler && (how.Source != "" || how.Adopt != "" || len(how.HandOver) > 0):
		return how, api.Forbidden("only the reconciler applies on behalf of a source")
	case !slices.Contains([]string{"", api.AdoptNever, api.AdoptIfUnowned, api.AdoptAlways}, how.Adopt):
		return how, api.Invalid("the request", api.Field("adopt", "is %q; it must be Never, IfUnowned or Always", how.Adopt))
	}
	if how.Override != nil {
		if fields := validate.Object(how.Override); len(fields) > 0 {
			return how, api.Invalid("the override", fields)
		}
	}
	return how, nil
}

// application is one object that is applied, before and after.
type application struct{ object, before, after proto.Message }

// applyPart plans some objects and commits them, unless it is a dry run.
func (s *Service) applyPart(ctx context.Context, req *carav1.ApplyRequest, how rules.ApplyTerms, part []int, results []*carav1.ApplyResult) {
	var planned []int
	var all []*application
	var changes []func(*state.Tx) error
	for _, i := range part {
		a := &application{object: api.Unwrap(req.GetObjects()[i])}
		if err := s.mayApply(ctx, a.object, how); err != nil {
			results[i] = refused(a.object, err)
			continue
		}
		planned, all = append(planned, i), append(all, a)
		changes = append(changes, func(t *state.Tx) (err error) {
			a.before, a.after, err = s.appliers[state.KindName(a.object)](t, a.object, how)
			return err
		})
	}
	var errs []error
	if req.GetDryRun() {
		errs = s.dryRun(ctx, changes)
	} else {
		errs = s.DB.TransactAll(ctx, changes)
	}
	for n, i := range planned {
		if errs[n] != nil {
			results[i] = refused(all[n].object, errs[n])
		} else {
			results[i] = applied(all[n].before, all[n].after)
		}
	}
}

// dryRun plans each change alone.
func (s *Service) dryRun(ctx context.Context, changes []func(*state.Tx) error) []error {
	errs := make([]error, len(changes))
	for i, plan := range changes {
		t := s.DB.Begin(ctx)
		t.DryRun = true
		errs[i] = plan(t)
	}
	return errs
}

// mayApply returns an error if the caller may not apply an object of this kind, or if the object is not valid.
func (s *Service) mayApply(ctx context.Context, m proto.Message, how rules.ApplyTerms) error {
	if m == nil {
		return api.BadRequest("the request has an entry without an object")
	}
	kind, actor := state.KindName(m), identity.ActorOf(ctx)
	if s.appliers[kind] == nil || how.Source != "" && kind != api.KindProject {
		return api.BadRequest("objects of kind %s cannot be applied", kind)
	}
	if how.Source == "" {
		if err := s.MayCall(actor, "/cara.v1."+kind+"Service/Put"+kind); err != nil {
			return err
		}
		if err := actor.CheckName(api.Meta(m).GetName()); err != nil {
			return err
		}
	}
	return validateObject(m)
}

func refused(m proto.Message, err error) *carav1.ApplyResult {
	r := &carav1.ApplyResult{Action: api.ApplyRefused, Problem: api.ProblemOf(api.Wire(err))}
	if m != nil {
		r.Kind, r.Name = state.KindName(m), api.Meta(m).GetName()
	}
	return r
}

// applied returns the result for an object, from its state before and after.
func applied(before, after proto.Message) *carav1.ApplyResult {
	meta := api.Meta(after)
	r := &carav1.ApplyResult{
		Kind: state.KindName(after), Name: meta.GetName(), Uid: meta.GetUid(), ResourceVersion: meta.GetResourceVersion(),
		Action: api.ApplyConfigured,
	}
	switch {
	case before == nil || !before.ProtoReflect().IsValid():
		r.Action = api.ApplyCreated
		return r
	case before == after:
		r.Action = api.ApplyUnchanged
		return r
	}
	if p, ok := after.(*carav1.Project); ok {
		r.Diff = api.Diff(before.(*carav1.Project), p)
	} else {
		r.Diff = api.DiffMessages(declared(before), declared(after))
	}
	return r
}

// declared returns the part of an object that a manifest declares.
func declared(m proto.Message) proto.Message {
	out := proto.Clone(m)
	meta := api.Meta(m)
	state.SetMeta(out, &carav1.ObjectMeta{Name: meta.GetName(), Labels: meta.GetLabels(), Annotations: meta.GetAnnotations()})
	if f := out.ProtoReflect().Descriptor().Fields().ByName("status"); f != nil {
		out.ProtoReflect().Clear(f)
	}
	return out
}
