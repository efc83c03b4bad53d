package apiserver

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/objects"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// maxAhead is how long a call waits that names a revision which this server has not reached. A server that is behind for
// longer decides by what it has, and such a call gets a conflict. A call that another server has sent here is refused then.
const maxAhead = 5 * time.Second

// catchUp waits until this server has the revisions that a request names, because another server may have answered with them. It does
// not wait for a caller without an identity, who has nothing with a revision.
func (s *Server) catchUp(ctx context.Context, actor identity.Actor, req any) error {
	m, ok := req.(proto.Message)
	if s.db.Ahead == 0 || !ok || actor.Role == api.RoleNone {
		return nil
	}
	var newest int64
	for _, name := range append(revisions(m), metadata.ValueFromIncomingContext(ctx, objects.HeaderIfMatch)...) {
		if rev, ok := api.ParseRevision(strings.Trim(strings.TrimPrefix(name, "W/"), `"`)); ok {
			newest = max(newest, rev)
		}
	}
	return s.db.Reach(ctx, newest)
}

// revisions returns the resource versions in a request: its own, and those of its objects.
func revisions(m proto.Message) (out []string) {
	if r, ok := m.(interface{ GetResourceVersion() string }); ok {
		out = append(out, r.GetResourceVersion())
	}
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Message() == nil || f.IsMap() || !r.Has(f) {
			continue
		}
		if !f.IsList() {
			out = append(out, revisionOf(r.Get(f)))
			continue
		}
		for j := range r.Get(f).List().Len() {
			out = append(out, revisionOf(r.Get(f).List().Get(j)))
		}
	}
	return out
}

func revisionOf(v protoreflect.Value) string {
	m := v.Message().Interface()
	if o, ok := m.(*carav1.Object); ok {
		m = api.Unwrap(o)
	}
	if r, ok := m.(interface{ GetResourceVersion() string }); ok {
		return r.GetResourceVersion()
	}
	return api.Meta(m).GetResourceVersion()
}
