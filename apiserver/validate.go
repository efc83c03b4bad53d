package apiserver

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// validate checks a request against the contract. A request around one object is judged by the object, so that the
// fields in the answer are spelled as in the manifest.
func (s *Server) validate(req proto.Message) error {
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
		return nil // many objects: each is judged by itself, where it is used
	}
	if fields := api.Validate(req); len(fields) > 0 {
		return api.Invalid("the request", fields)
	}
	return nil
}

// validateObject checks one whole object.
func validateObject(m proto.Message) error {
	if m == nil || !m.ProtoReflect().IsValid() {
		return api.BadRequest("the request has no object")
	}
	if fields := api.Validate(m); len(fields) > 0 {
		return api.Invalid(describe(m), fields)
	}
	return nil
}

// describe names an object for people: `project "web"`.
func describe(m proto.Message) string {
	return fmt.Sprintf("%s %q", lowerKind(state.KindName(m)), api.Meta(m).GetName())
}

func lowerKind(kind string) string {
	if kind == "" {
		return "object"
	}
	return string(kind[0]|0x20) + kind[1:]
}

func notFound(kind, name string) error {
	return api.NotFound("%s %q not found", lowerKind(kind), name)
}

// mustBe says whether the object is the one that the caller means: its uid and its resourceVersion, where given.
func mustBe(m proto.Message, uid, resourceVersion string) error {
	meta := api.Meta(m)
	if uid != "" && uid != meta.GetUid() {
		return api.Conflict("%s has uid %s, not %s: it was deleted and created again",
			describe(m), meta.GetUid(), uid)
	}
	if resourceVersion != "" && resourceVersion != meta.GetResourceVersion() {
		return api.Conflict("%s is at resourceVersion %s, not %s: read it again and redo the change",
			describe(m), meta.GetResourceVersion(), resourceVersion)
	}
	return nil
}
