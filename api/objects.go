package api

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Wrap puts an object into an Object, without copying it. It returns nil for any other message.
func Wrap(m proto.Message) *carav1.Object {
	switch m := m.(type) {
	case *carav1.Project:
		return &carav1.Object{Value: &carav1.Object_Project{Project: m}}
	case *carav1.Node:
		return &carav1.Object{Value: &carav1.Object_Node{Node: m}}
	case *carav1.Source:
		return &carav1.Object{Value: &carav1.Object_Source{Source: m}}
	case *carav1.Secret:
		return &carav1.Object{Value: &carav1.Object_Secret{Secret: m}}
	case *carav1.Event:
		return &carav1.Object{Value: &carav1.Object_Event{Event: m}}
	case *carav1.Claim:
		return &carav1.Object{Value: &carav1.Object_Claim{Claim: m}}
	case *carav1.Override:
		return &carav1.Object{Value: &carav1.Object_Override{Override: m}}
	case *carav1.Tombstone:
		return &carav1.Object{Value: &carav1.Object_Tombstone{Tombstone: m}}
	case *carav1.Token:
		return &carav1.Object{Value: &carav1.Object_Token{Token: m}}
	case *carav1.Revision:
		return &carav1.Object{Value: &carav1.Object_Revision{Revision: m}}
	case *carav1.Volume:
		return &carav1.Object{Value: &carav1.Object_Volume{Volume: m}}
	}
	return nil
}

// Unwrap returns the object in an Object, without copying it, or nil.
func Unwrap(o *carav1.Object) proto.Message {
	switch v := o.GetValue().(type) {
	case *carav1.Object_Project:
		return orNil(v.Project)
	case *carav1.Object_Node:
		return orNil(v.Node)
	case *carav1.Object_Source:
		return orNil(v.Source)
	case *carav1.Object_Secret:
		return orNil(v.Secret)
	case *carav1.Object_Event:
		return orNil(v.Event)
	case *carav1.Object_Claim:
		return orNil(v.Claim)
	case *carav1.Object_Override:
		return orNil(v.Override)
	case *carav1.Object_Tombstone:
		return orNil(v.Tombstone)
	case *carav1.Object_Token:
		return orNil(v.Token)
	case *carav1.Object_Revision:
		return orNil(v.Revision)
	case *carav1.Object_Volume:
		return orNil(v.Volume)
	}
	return nil
}

// orNil returns a nil interface for a typed nil.
func orNil[T any, P interface {
	*T
	proto.Message
}](m P) proto.Message {
	if m == nil {
		return nil
	}
	return m
}

// Meta returns an object's metadata, not a copy; nil if it has none.
func Meta(m proto.Message) *carav1.ObjectMeta {
	if o, ok := m.(interface{ GetMetadata() *carav1.ObjectMeta }); ok {
		return o.GetMetadata()
	}
	return nil
}

// ListKind returns the kind of a list, such as `ProjectList`.
func ListKind(kind string) string { return kind + "List" }

// Kind returns the kind of an object by its Go type, whatever its kind field says; "" for any other message.
func Kind(m proto.Message) string {
	switch m.(type) {
	case *carav1.Project, *carav1.Node, *carav1.Source, *carav1.Secret, *carav1.Event, *carav1.Claim, *carav1.Override,
		*carav1.Tombstone, *carav1.Revision, *carav1.Token, *carav1.Session, *carav1.Volume:
		return string(m.ProtoReflect().Descriptor().Name())
	}
	return ""
}

// New returns an empty object of a kind, with apiVersion and kind if the type has them; nil for an unknown kind.
func New(kind string) proto.Message {
	switch kind {
	case KindProject:
		return &carav1.Project{ApiVersion: APIVersion, Kind: kind}
	case KindNode:
		return &carav1.Node{ApiVersion: APIVersion, Kind: kind}
	case KindSource:
		return &carav1.Source{ApiVersion: APIVersion, Kind: kind}
	case KindSecret:
		return &carav1.Secret{ApiVersion: APIVersion, Kind: kind}
	case KindEvent:
		return &carav1.Event{ApiVersion: APIVersion, Kind: kind}
	case KindClaim:
		return &carav1.Claim{}
	case KindOverride:
		return &carav1.Override{}
	case KindTombstone:
		return &carav1.Tombstone{}
	case KindRevision:
		return &carav1.Revision{}
	case KindToken:
		return &carav1.Token{}
	case KindSession:
		return &carav1.Session{}
	case KindVolume:
		return &carav1.Volume{ApiVersion: APIVersion, Kind: kind}
	}
	return nil
}

// FormatRevision formats a revision of the store as a resourceVersion.
func FormatRevision(r int64) string { return strconv.FormatInt(r, 10) }

// ParseRevision parses a resourceVersion. ok is false if it is not a revision.
func ParseRevision(s string) (r int64, ok bool) {
	r, err := strconv.ParseInt(s, 10, 64)
	return r, err == nil && r >= 0
}

// RevisionOf returns the revision of an object's last write; 0 if it has none.
func RevisionOf(m proto.Message) int64 {
	r, _ := ParseRevision(Meta(m).GetResourceVersion())
	return r
}

// ShortRevision shortens a commit ID for display. It does not change the hash of a directory.
func ShortRevision(revision string) string {
	if len(revision) > 7 && !strings.Contains(revision, ":") {
		return revision[:7]
	}
	return revision
}
