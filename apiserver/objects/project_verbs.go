package objects

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// editProject runs change on the transaction's own copy of a project, and writes the copy if it changed.
func (s *Service) editProject(ctx context.Context, name string, change func(t *state.Tx, p *carav1.Project) error) (*carav1.Project, error) {
	var out *carav1.Project
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		old, ok := state.Read[*carav1.Project](t, name)
		if !ok {
			return NotFound(api.KindProject, name)
		}
		p := proto.CloneOf(old)
		if err := change(t, p); err != nil {
			return err
		}
		if out = old; !proto.Equal(old, p) {
			out = p
			t.Put(p)
		}
		return nil
	})
	return out, err
}

// RetryProject moves a Failed project back to Pending. If an update failed while the previous version still runs, the
// update is tried again on the same node.
func (s Projects) RetryProject(ctx context.Context, req *carav1.RetryProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		if err := mayRunAgain(t, p); err != nil {
			return err
		}
		if api.UpdateFailed(p) {
			requestRestart(t, p, notUpdated(p), api.ReasonRetry, "retry of the update asked for by "+t.Actor.Name)
			return nil
		}
		if phase := p.GetStatus().GetPhase(); phase != api.PhaseFailed {
			return api.BadState("project %q is %s: only a Failed one is retried, and one whose update failed", req.GetName(), phase)
		}
		leaveNode(t, p, api.ReasonRetry, "waiting for the scheduler")
		p.Status.Services = nil // a retry resolves image tags again
		return movePhase(t, p, api.PhasePending, api.RoleServer, api.ReasonRetry, "retry asked for by "+t.Actor.Name)
	})
}

// notUpdated returns the services whose container does not match the spec. If all match, it returns the services with a
// requested restart, because then the restart failed.
func notUpdated(p *carav1.Project) []string {
	var out []string
	for _, s := range p.GetStatus().GetServices() {
		if s.GetSpecHash() != api.ServiceHash(p.GetSpec(), s.GetName()) {
			out = append(out, s.GetName())
		}
	}
	if len(out) == 0 {
		return p.GetStatus().GetRestartServices()
	}
	return out
}

// requestRestart asks the project's agent to restart services, or all services if none is named. It replaces the result of
// a failed update.
func requestRestart(t *state.Tx, p *carav1.Project, services []string, reason api.Reason, message string) {
	token := state.NewUID()
	p.Status.Restarts = api.AddRestart(p, services, token) // before the older fields change, because AddRestart may read them
	p.Status.RestartToken, p.Status.RestartServices = token, slices.Clone(services)
	if api.UpdateFailed(p) {
		setCondition(t, p, &carav1.Condition{Type: api.CondReady, Status: api.StatusFalse, Reason: string(reason), Message: message})
	}
	RecordEvent(t, RefTo(p), api.EventNormal, reason, message)
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
		requestRestart(t, p, req.GetServices(), api.ReasonRestart, "restart of "+what+" asked for by "+t.Actor.Name)
		return nil
	})
}

// ExtendProject moves a project's expiry: in the spec, or as an override if a source owns the project.
func (s Projects) ExtendProject(ctx context.Context, req *carav1.ExtendProjectRequest) (*carav1.Project, error) {
	return s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		switch p.GetStatus().GetPhase() {
		case api.PhaseTerminating, api.PhaseTerminated:
			return errTerminating(p)
		}
		until, err := extension(t, p, req)
		if err != nil {
			return err
		}
		o, _ := state.Read[*carav1.Override](t, req.GetName())
		message := "expires at " + until.UTC().Format(time.RFC3339) + ", says " + t.Actor.Name
		if sourceOf(p) == "" || o.GetScope() == api.OverrideSpec && plan.InForce(o, t.Now) {
			old := proto.CloneOf(p)
			spec := proto.CloneOf(p.GetSpec())
			spec.ExpireAt = timestamppb.New(until)
			if err := changeSpec(t, old, p, spec, message); err != nil {
				return err
			}
			keepRevision(t, p, req.GetReason())
			return nil
		}
		if err := mayExtend(p, until); err != nil {
			return err
		}
		o = &carav1.Override{
			Metadata: &carav1.ObjectMeta{Name: req.GetName(), CreationTimestamp: timestamppb.New(t.Now)},
			Scope:    api.OverrideExpiry, Actor: t.Actor.Name, Reason: req.GetReason(),
			Since: timestamppb.New(t.Now), Until: timestamppb.New(until), ExpireAt: timestamppb.New(until),
		}
		t.Put(o)
		setExpiry(t, p)
		RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonExtended, message)
		showOverride(t, p, o)
		return nil
	})
}

// mayExtend allows an extension only if git declares an expiry, and the extension is later than that.
func mayExtend(p *carav1.Project, until time.Time) error {
	declared := p.GetSpec().GetExpireAt()
	switch {
	case declared == nil:
		return api.BadState("project %q of %s has no expireAt: there is nothing to extend, it lives until git says otherwise",
			p.GetMetadata().GetName(), whence(p.GetMetadata().GetOwner(), p.GetMetadata().GetOrigin()))
	case !until.After(declared.AsTime()):
		return api.Invalid("the request", api.Field("until", "is %s, and git gives project %q until %s: name a later time, or change git",
			until.UTC().Format(time.RFC3339), p.GetMetadata().GetName(), utc(declared)))
	}
	return nil
}

func utc(at *timestamppb.Timestamp) string { return at.AsTime().UTC().Format(time.RFC3339) }

// extension returns the new expiry of a request.
func extension(t *state.Tx, p *carav1.Project, req *carav1.ExtendProjectRequest) (time.Time, error) {
	var until time.Time
	invalid := func(field, format string, args ...any) (time.Time, error) {
		return until, api.Invalid("the request", api.Field(field, format, args...))
	}
	switch {
	case (req.GetUntil() == nil) == (req.GetBy() == nil):
		return invalid("until", "and by: give exactly one of the two")
	case req.GetUntil() != nil:
		until = req.GetUntil().AsTime()
	case p.GetStatus().GetExpireAt() == nil:
		return invalid("by", "adds to the expiry that stands, and project %q has none; give until", req.GetName())
	default:
		until = p.GetStatus().GetExpireAt().AsTime().Add(req.GetBy().AsDuration())
	}
	if !until.After(t.Now) {
		return invalid("until", "is %s, which is in the past", until.UTC().Format(time.RFC3339))
	}
	return until, nil
}

// NoticeExpiry records on a project that it expires soon. A change of the expiry removes the notice.
func (s Projects) NoticeExpiry(ctx context.Context, req *carav1.RemoveProjectRequest) (*empty, error) {
	_, err := s.editProject(ctx, req.GetName(), func(t *state.Tx, p *carav1.Project) error {
		if err := MustBe(p, req.GetUid(), ""); err != nil {
			return err
		}
		at := p.GetStatus().GetExpireAt()
		if at == nil || !at.AsTime().After(t.Now) || p.GetMetadata().GetDeletionTimestamp() != nil || api.IsTrue(p.GetStatus().GetConditions(), api.CondExpiring) {
			return nil
		}
		message := "expires at " + at.AsTime().UTC().Format(time.RFC3339) + "; caractrl extend " + req.GetName() + " 24h keeps it longer"
		setCondition(t, p, &carav1.Condition{Type: api.CondExpiring, Status: api.StatusTrue, Reason: api.ReasonSoon, Message: message})
		RecordEvent(t, RefTo(p), api.EventNormal, api.ReasonExpiring, message)
		return nil
	})
	return &empty{}, err
}
