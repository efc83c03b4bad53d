package state

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// KindHost is the claim of one project on one ingress host: hosts/HOST holds a reference to the project. It is no kind
// of the API.
const KindHost = "ObjectRef"

// KindGuard is a key without content that stands for many objects: guards/claims is written with each change of claims. A
// transaction that relies on what is not claimed insists on it. It is no kind of the API.
const KindGuard = "ObjectMeta"

// KindStaged is a claim of a snapshot that is stored in parts: see StagedClaim. It is no kind of the API.
const KindStaged = "StagedClaim"

// Encoding is the first byte of every value: protobuf follows. A value that begins with another was written by a newer
// server.
const Encoding = 1

// kinds has for each kind where its objects are kept, an empty one, and whether it is watched: no Secret and no token passes
// a stream.
var kinds = []struct { //nolint:gochecknoglobals // a table that never changes
	kind, prefix string
	empty        proto.Message
	watched      bool
}{
	{api.KindProject, "projects/", &carav1.Project{}, true},
	{api.KindNode, "nodes/", &carav1.Node{}, true},
	{api.KindSource, "sources/", &carav1.Source{}, true},
	{api.KindEvent, "events/", &carav1.Event{}, true},
	{api.KindClaim, "claims/", &carav1.Claim{}, true},
	{api.KindOverride, "overrides/", &carav1.Override{}, true},
	{api.KindTombstone, "tombstones/", &carav1.Tombstone{}, true},
	{api.KindSecret, "secrets/", &carav1.Secret{}, false},
	{api.KindToken, "tokens/", &carav1.Token{}, false},
	{KindStaged, "staged/", &carav1.StagedClaim{}, false},
	{KindHost, "hosts/", &carav1.ObjectRef{}, false},
	{KindGuard, "guards/", &carav1.ObjectMeta{}, false},
}

// Watched are the kinds that may be watched.
func Watched() []string {
	var names []string
	for _, k := range kinds {
		if k.watched {
			names = append(names, k.kind)
		}
	}
	return names
}

func watched(kind string) bool {
	for i := range kinds {
		if kinds[i].kind == kind {
			return kinds[i].watched
		}
	}
	return false
}

// KindOf is the kind that messages of type T have; the generated type's own name.
func KindOf[T proto.Message]() string {
	var zero T
	return string(zero.ProtoReflect().Descriptor().Name())
}

// KindName is the kind of a message: its generated type's own name.
func KindName(m proto.Message) string { return string(m.ProtoReflect().Descriptor().Name()) }

// Key is where the object of this kind and name is kept.
func Key(kind, name string) string {
	for i := range kinds {
		if kinds[i].kind == kind {
			return kinds[i].prefix + name
		}
	}
	return "" // the store refuses an empty key
}

// parseKey is the inverse of Key; ok is false for keys that are not objects of this room, such as the server's own
// identity.
func parseKey(key string) (kind, name string, empty proto.Message, ok bool) {
	for i := range kinds {
		if name, ok := strings.CutPrefix(key, kinds[i].prefix); ok {
			return kinds[i].kind, name, kinds[i].empty, true
		}
	}
	return "", "", nil, false
}

// Encode gives the bytes to store. It clears the object's resourceVersion, which belongs to the store.
func Encode(m proto.Message) ([]byte, error) {
	if meta := api.Meta(m); meta != nil {
		meta.ResourceVersion = ""
	}
	buf := make([]byte, 1, 1+proto.Size(m))
	buf[0] = Encoding
	buf, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(buf, m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", KindName(m), err)
	}
	return buf, nil
}

// Decode is encode's inverse; revision is that of the object's last write.
func Decode(empty proto.Message, value []byte, revision int64) (proto.Message, error) {
	if len(value) == 0 || value[0] != Encoding {
		return nil, fmt.Errorf("value of revision %d is not in encoding %d: was it written by a newer server?", revision, Encoding)
	}
	m := empty.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(value[1:], m); err != nil {
		return nil, fmt.Errorf("decode %s: %w", KindName(m), err)
	}
	if meta := api.Meta(m); meta != nil {
		meta.ResourceVersion = api.FormatRevision(revision)
	}
	return m, nil
}
