package objects

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// editProject runs change on the transaction's own copy of a project, and writes the copy if it changed.
func (s *Service) editProject(ctx context.Context, name string, change func(t *state.Tx, p *carav1.Project) error) (*carav1.Project, error) {
	var out *carav1.Project
	err := s.DB.Transact(ctx, func(t *state.Tx) (err error) {
		out, err = rules.Edit(t, name, func(p *carav1.Project) error {
			if err := checkSeen(ctx, p); err != nil {
				return err
			}
			return change(t, p)
		})
		return err
	})
	return out, err
}

// RetryProject moves a Failed project back to Pending. If an update failed while the previous version still runs, the
// update is tried again on the same node.
func (s Projects) RetryProject(ctx context.Context, req *carav1.RetryProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		if err := rules.MayRunAgain(t, p); err != nil {
			return err
		}
		if api.UpdateFailed(p) {
			rules.RequestRestart(t, p, rules.NotUpdated(p), api.ReasonRetry, "retry of the update asked for by "+t.Actor.Name)
			return nil
		}
		if phase := p.GetStatus().GetPhase(); phase != api.PhaseFailed {
			return api.BadState("project %q is %s: only a Failed one is retried, and one whose update failed", req.GetName(), phase)
		}
		rules.LeaveNode(t, p, api.ReasonRetry, "waiting for the scheduler")
		p.Status.Services = nil // a retry resolves image tags again
		return rules.MovePhase(t, p, api.PhasePending, api.RoleServer, api.ReasonRetry, "retry asked for by "+t.Actor.Name)
	})
}

// RestartProject asks the project's agent to restart all services or some.
func (s Projects) RestartProject(ctx context.Context, req *carav1.RestartProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		if phase := p.GetStatus().GetPhase(); phase != api.PhaseRunning && phase != api.PhaseScheduled {
			return api.BadState("project %q is %s: there is nothing to restart", req.GetName(), phase)
		}
		for i, name := range req.GetServices() {
			if !slices.ContainsFunc(p.GetSpec().GetServices(), func(svc *carav1.Service) bool { return svc.GetName() == name }) {
				return api.Invalid("the request", api.Field(api.Element("services", i), "is %q; project %q has no such service", name, req.GetName()))
			}
		}
		what := "all services"
		if len(req.GetServices()) > 0 {
			what = strings.Join(req.GetServices(), ", ")
		}
		rules.RequestRestart(t, p, req.GetServices(), api.ReasonRestart, "restart of "+what+" asked for by "+t.Actor.Name)
		return nil
	})
}

// ExtendProject moves a project's expiry: in the spec, or as an override if a source owns the project.
func (s Projects) ExtendProject(ctx context.Context, req *carav1.ExtendProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		switch p.GetStatus().GetPhase() {
		case api.PhaseTerminating, api.PhaseTerminated:
			return rules.ErrTerminating(p)
		}
		until, err := rules.Extension(t, p, req)
		if err != nil {
			return err
		}
		o, _ := state.Read[*carav1.Override](t, req.GetName())
		message := "expires at " + until.UTC().Format(time.RFC3339) + ", says " + t.Actor.Name
		if rules.SourceOf(p) == "" || o.GetScope() == api.OverrideSpec && plan.InForce(o, t.Now) {
			old := proto.CloneOf(p)
			spec := proto.CloneOf(p.GetSpec())
			spec.ExpireAt = timestamppb.New(until)
			if err := rules.ChangeSpec(t, old, p, spec, message); err != nil {
				return err
			}
			rules.KeepRevision(t, p, req.GetReason())
			return nil
		}
		if err := rules.MayExtend(p, until); err != nil {
			return err
		}
		o = &carav1.Override{
			Metadata: &carav1.ObjectMeta{Name: req.GetName(), CreationTimestamp: timestamppb.New(t.Now)},
			Scope:    api.OverrideExpiry, Actor: t.Actor.Name, Reason: req.GetReason(),
			Since: timestamppb.New(t.Now), Until: timestamppb.New(until), ExpireAt: timestamppb.New(until),
		}
		t.Put(o)
		rules.SetExpiry(t, p)
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonExtended, message)
		rules.ShowOverride(t, p, o)
		return nil
	})
}

// NoticeExpiry records on a project that it expires soon. A change of the expiry removes the notice.
func (s Projects) NoticeExpiry(ctx context.Context, req *carav1.RemoveProjectRequest) (*empty, error) {
	_, err := s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		if err := rules.MustBe(p, req.GetUid(), ""); err != nil {
			return err
		}
		at := p.GetStatus().GetExpireAt()
		if at == nil || !at.AsTime().After(t.Now) || p.GetMetadata().GetDeletionTimestamp() != nil || api.IsTrue(p.GetStatus().GetConditions(), api.CondExpiring) {
			return nil
		}
		message := "expires at " + at.AsTime().UTC().Format(time.RFC3339) + "; caractrl extend " + req.GetName() + " 24h keeps it longer"
		rules.SetCondition(t, p, &carav1.Condition{Type: api.CondExpiring, Status: api.StatusTrue, Reason: api.ReasonSoon, Message: message})
		rules.RecordEvent(t, rules.RefTo(p), api.EventNormal, api.ReasonExpiring, message)
		return nil
	})
	return &empty{}, err
}

// OverrideProject records or clears the override of a project.
func (s Projects) OverrideProject(ctx context.Context, req *carav1.OverrideProjectRequest) (*carav1.Override, error) {
	var out *carav1.Override
	err := s.transactSeen(ctx, req.GetName(), func(t *state.Tx) (err error) {
		if req.GetClear() {
			out, err = rules.ClearOverride(t, req.GetName())
			return err
		}
		out, err = rules.OverrideProject(t, req.GetName(), req.GetTerms())
		return err
	})
	return out, err
}
