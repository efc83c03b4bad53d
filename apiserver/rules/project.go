package rules

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// MustMatch compares uid and resourceVersion with the stored object if the caller asks for a compare-and-swap.
func MustMatch(t *state.Tx, kind string, in proto.Message, want string) error {
	meta := api.Meta(in)
	uid := meta.GetUid()
	if want == "" && uid == "" {
		return nil
	}
	m := t.Object(kind, meta.GetName())
	if m == nil {
		return api.Conflict("%s is gone: leave resourceVersion and uid out to create it anew", Describe(in))
	}
	if want == "*" { // If-Match: * means any version
		want = ""
	}
	return MustBe(m, uid, want)
}

// DeclareProject creates or changes a project for a person. It returns the project before, or nil, and after. With terms it
// may change a project that a source owns, and records the override.
func DeclareProject(t *state.Tx, in *carav1.Project, terms *carav1.OverrideTerms) (before, after *carav1.Project, err error) {
	name := in.GetMetadata().GetName()
	if err := t.Actor.CheckName(name); err != nil {
		return nil, nil, err
	}
	if _, exists := state.Read[*carav1.Project](t, name); !exists {
		if err := MayDeclare(t, in); err != nil {
			return nil, nil, err
		}
		after, err = createProject(t, in, t.Actor.Name, nil)
		return nil, after, err
	}
	return redeclareBy(t, in, terms, "changed by "+t.Actor.Name, terms.GetReason())
}

// redeclareBy changes an existing project for a person. what goes into the event, reason into the project's history.
func redeclareBy(t *state.Tx, in *carav1.Project, terms *carav1.OverrideTerms, what, reason string) (before, after *carav1.Project, err error) {
	old, _ := state.Read[*carav1.Project](t, in.GetMetadata().GetName())
	if api.GoingAway(old) {
		return nil, nil, ErrTerminating(old)
	}
	p := proto.CloneOf(old)
	changed, err := redeclare(t, old, p, in, what)
	if err != nil {
		return nil, nil, err
	}
	overrides := terms != nil && SourceOf(old) != ""
	if !changed && !overrides { // the same spec with other terms changes the override
		return old, old, nil
	}
	if err := MayDeclare(t, in); err != nil {
		return nil, nil, err
	}
	if SourceOf(old) != "" {
		if err := overrideSpec(t, p, terms); err != nil {
			return nil, nil, err
		}
	}
	if p.GetMetadata().GetGeneration() != old.GetMetadata().GetGeneration() {
		KeepRevision(t, p, reason)
	}
	t.Put(p)
	return old, p, nil
}

// createProject creates a project that a person or a source declares.
func createProject(t *state.Tx, in *carav1.Project, owner string, origin *carav1.Origin) (*carav1.Project, error) {
	if at := in.GetSpec().GetExpireAt(); at != nil && !at.AsTime().After(t.Now) {
		return nil, errExpired(t, in, at.AsTime(), owner)
	}
	p, err := newProject(t, in, owner, origin)
	if err != nil {
		return nil, err
	}
	if _, ok := state.Read[*carav1.Tombstone](t, p.GetMetadata().GetName()); ok {
		t.Remove(api.KindTombstone, p.GetMetadata().GetName())
	}
	t.Put(p)
	return p, nil
}

func errExpired(t *state.Tx, in *carav1.Project, at time.Time, owner string) error {
	when := at.UTC().Format(time.RFC3339)
	if t.Actor.Person() {
		return api.Invalid(Describe(in), api.Field("spec.expireAt", "is %s, which is in the past; set a later time or leave it out", when))
	}
	return api.Expired("project %q of %s expired at %s: it is not created", in.GetMetadata().GetName(), owner, when)
}

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
		return errNothingToExtend(p)
	case !until.After(declared.AsTime()):
		return api.Invalid("the request", api.Field("until", "is %s, and git gives project %q until %s: name a later time, or change git",
			until.UTC().Format(time.RFC3339), p.GetMetadata().GetName(), utc(declared)))
	}
	return nil
}

func errNothingToExtend(p *carav1.Project) error {
	return api.BadState("project %q of %s has no expireAt: there is nothing to extend, it lives until git says otherwise",
		p.GetMetadata().GetName(), Whence(p.GetMetadata().GetOwner(), p.GetMetadata().GetOrigin()))
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
		if SourceOf(p) != "" && p.GetSpec().GetExpireAt() == nil {
			return until, errNothingToExtend(p)
		}
		return until, api.BadRequest("project %[1]q has no expireAt; say until when it lives: caractrl extend %[1]s %[2]s",
			req.GetName(), t.Now.Add(req.GetBy().AsDuration()).UTC().Format(time.RFC3339))
	default:
		until = p.GetStatus().GetExpireAt().AsTime().Add(req.GetBy().AsDuration())
	}
	if !until.After(t.Now) {
		return invalid("until", "is %s, which is in the past", until.UTC().Format(time.RFC3339))
	}
	return until, nil
}
