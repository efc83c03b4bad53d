package rules

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// NotUpdated returns the services whose container does not match the spec. If all match, it returns the services with a
// requested restart, because then the restart failed.
func NotUpdated(p *carav1.Project) []string {
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

// RequestRestart asks the project's agent to restart services, or all services if none is named. It replaces the result of
// a failed update.
func RequestRestart(t *state.Tx, p *carav1.Project, services []string, reason api.Reason, message string) {
	token := state.NewUID()
	p.Status.Restarts = api.AddRestart(p, services, token) // before the older fields change, because AddRestart may read them
	p.Status.RestartToken, p.Status.RestartServices = token, slices.Clone(services)
	if api.UpdateFailed(p) {
		SetCondition(t, p, &carav1.Condition{Type: api.CondReady, Status: api.StatusFalse, Reason: string(reason), Message: message})
	}
	RecordEvent(t, RefTo(p), api.EventNormal, reason, message)
}

// MayExtend allows an extension only if git declares an expiry, and the extension is later than that.
func MayExtend(p *carav1.Project, until time.Time) error {
	declared := p.GetSpec().GetExpireAt()
	switch {
	case declared == nil:
		return api.BadState("project %q of %s has no expireAt: there is nothing to extend, it lives until git says otherwise",
			p.GetMetadata().GetName(), Whence(p.GetMetadata().GetOwner(), p.GetMetadata().GetOrigin()))
	case !until.After(declared.AsTime()):
		return api.Invalid("the request", api.Field("until", "is %s, and git gives project %q until %s: name a later time, or change git",
			until.UTC().Format(time.RFC3339), p.GetMetadata().GetName(), utc(declared)))
	}
	return nil
}

func utc(at *timestamppb.Timestamp) string { return at.AsTime().UTC().Format(time.RFC3339) }

// Extension returns the new expiry of a request.
func Extension(t *state.Tx, p *carav1.Project, req *carav1.ExtendProjectRequest) (time.Time, error) {
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
