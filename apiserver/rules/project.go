package rules

import (
	"time"

	"google.golang.org/protobuf/proto"

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
	if !changed {
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
