package objects

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/validate"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// labelMatch parses a label selector with the syntax of Kubernetes; the empty one matches everything.
func labelMatch[T proto.Message](selector string) (func(T) bool, error) {
	if selector == "" {
		return func(T) bool { return true }, nil
	}
	sel, err := labels.Parse(selector)
	if err != nil {
		return nil, api.Invalid("the request", api.Field("labelSelector", "is no label selector such as `app=web,tier in (a,b)`: %v", err))
	}
	return func(m T) bool { return sel.Matches(labels.Set(api.Meta(m).GetLabels())) }, nil
}

// listed returns one page of a list, each object as show shows it.
func listed[T proto.Message](r state.Reader, req *carav1.ListRequest, show func(T) T) ([]T, *carav1.ListMeta, error) {
	match, err := labelMatch[T](req.GetLabelSelector())
	if err != nil {
		return nil, nil, err
	}
	items, meta := state.Page(r, "", req.GetPageToken(), req.GetLimit(), match)
	for i := range items {
		items[i] = show(items[i])
	}
	return items, meta, nil
}

// shown returns an object as show shows it.
func shown[T proto.Message](r state.Reader, name string, show func(T) T) (T, error) {
	m, ok := state.Get[T](r, name)
	if !ok {
		return m, rules.NotFound(state.KindOf[T](), name)
	}
	return show(m), nil
}

func asStored[T proto.Message](m T) T { return m }

// declare creates or changes an object for a person. It returns the object before, which is zero if there was none, and after.
type declare[T proto.Message] func(t *state.Tx, in T) (before, after T, err error)

// apply returns the applier of a kind that is declared.
func apply[T proto.Message](do declare[T]) applier {
	return func(t *state.Tx, m proto.Message, _ rules.ApplyTerms) (before, after proto.Message, err error) {
		return do(t, m.(T))
	}
}

// create stores an object that does not exist yet, and returns it as show shows it.
func create[T proto.Message](ctx context.Context, db *state.DB, in T, do declare[T], show func(T) T) (out T, err error) {
	err = db.Transact(ctx, func(t *state.Tx) (err error) {
		if _, exists := state.Read[T](t, api.Meta(in).GetName()); exists {
			return api.AlreadyExists("%s already exists", rules.Describe(in))
		}
		_, out, err = do(t, in)
		return err
	})
	if err != nil {
		return *new(T), err
	}
	return show(out), answerCreated(ctx)
}

// put creates or replaces an object, if it is as the caller requires, and returns it as show shows it.
func put[T proto.Message](ctx context.Context, db *state.DB, in T, do declare[T], show func(T) T) (out T, err error) {
	want, exists := ifMatch(ctx, api.Meta(in).GetResourceVersion()), false
	err = db.Transact(ctx, func(t *state.Tx) (err error) {
		if err := rules.MustMatch(t, state.KindOf[T](), in, want); err != nil {
			return err
		}
		_, exists = state.Read[T](t, api.Meta(in).GetName())
		_, out, err = do(t, in)
		return err
	})
	if err == nil && !exists {
		err = answerCreated(ctx)
	}
	if err != nil {
		return *new(T), err
	}
	return show(out), nil
}

// Validate checks a request against the contract. If a request contains one object, Validate checks that object, so that
// the field names in the answer are those of the manifest.
func Validate(req proto.Message) error {
	switch r := req.(type) {
	case interface{ GetProject() *carav1.Project }:
		return validateObject(r.GetProject())
	case interface{ GetNode() *carav1.Node }:
		return validateObject(r.GetNode())
	case interface{ GetSource() *carav1.Source }:
		return validateObject(r.GetSource())
	case interface{ GetSecret() *carav1.Secret }:
		return validateObject(r.GetSecret())
	case *carav1.ApplyRequest, *carav1.PublishSnapshotRequest:
		return nil // many objects: each is validated where it is used
	}
	if fields := validate.Object(req); len(fields) > 0 {
		return api.Invalid("the request", fields)
	}
	return nil
}

// validateObject validates one whole object.
func validateObject(m proto.Message) error {
	if m == nil || !m.ProtoReflect().IsValid() {
		return api.BadRequest("the request has no object")
	}
	if fields := validate.Object(m); len(fields) > 0 {
		return api.Invalid(rules.Describe(m), fields)
	}
	return nil
}

// Headers between the gateway and the services. gRPC clients may ignore them.
const (
	HeaderStatus  = "x-cara-http-status"
	HeaderIfMatch = "x-cara-if-match"
	// HeaderIfSeen requires that the project is as SeenOf described it.
	HeaderIfSeen = "x-cara-if-seen"
)

// answerCreated makes the REST status 201.
func answerCreated(ctx context.Context) error { return answerStatus(ctx, 201) }

func answerStatus(ctx context.Context, code int) error {
	return grpc.SetHeader(ctx, metadata.Pairs(HeaderStatus, strconv.Itoa(code)))
}

// ifMatch returns the resourceVersion that a change requires: the object's own, or REST's If-Match.
func ifMatch(ctx context.Context, resourceVersion string) string {
	if resourceVersion != "" {
		return resourceVersion
	}
	for _, v := range metadata.ValueFromIncomingContext(ctx, HeaderIfMatch) {
		return strings.Trim(strings.TrimPrefix(v, "W/"), `"`)
	}
	return ""
}

// SeenOf returns what a person who decides about a project has seen of it. It changes with the spec, the owner, the phase and
// the node, and not with each report of an agent.
func SeenOf(p *carav1.Project) string {
	meta, st := p.GetMetadata(), p.GetStatus()
	return fmt.Sprintf("%s/%d/%s/%s/%d/%s", meta.GetUid(), meta.GetGeneration(), st.GetPhase(), st.GetNodeRef(), st.GetEpoch(), meta.GetOwner())
}

// checkSeen returns an error if the caller has decided about an older state of a project.
func checkSeen(ctx context.Context, p *carav1.Project) error {
	for _, seen := range metadata.ValueFromIncomingContext(ctx, HeaderIfSeen) {
		if seen != SeenOf(p) {
			return api.Conflict("%s has changed since you looked: look again, then decide", rules.Describe(p))
		}
	}
	return nil
}

// transactSeen is Transact for a change of one project that the caller may have made dependent on what was seen.
func (s *Service) transactSeen(ctx context.Context, name string, change func(*state.Tx) error) error {
	return s.DB.Transact(ctx, func(t *state.Tx) error {
		if p, ok := state.Read[*carav1.Project](t, name); ok {
			if err := checkSeen(ctx, p); err != nil {
				return err
			}
		}
		return change(t)
	})
}
