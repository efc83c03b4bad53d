package rules

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
)

// Describe returns an object's kind and name for messages: `project "web"`.
func Describe(m proto.Message) string {
	return fmt.Sprintf("%s %q", lowerKind(state.KindName(m)), api.Meta(m).GetName())
}

func lowerKind(kind string) string {
	if kind == "" {
		return "object"
	}
	return string(kind[0]|0x20) + kind[1:]
}

// NotFound is the error of an object that does not exist.
func NotFound(kind, name string) error {
	return api.NotFound("%s %q not found", lowerKind(kind), name)
}

// Named returns the object that a request names. The uid and resourceVersion are as in MustBe.
func Named[T proto.Message](t *state.Tx, name, uid, resourceVersion string) (T, error) {
	m, ok := state.Read[T](t, name)
	if !ok {
		return m, NotFound(state.KindOf[T](), name)
	}
	return m, MustBe(m, uid, resourceVersion)
}

// Edit runs change on the transaction's own copy of an object, and writes the copy if it changed. It returns the object after that.
func Edit[T proto.Message](t *state.Tx, name string, change func(T) error) (T, error) {
	old, err := Named[T](t, name, "", "")
	if err != nil {
		return old, err
	}
	now := proto.CloneOf(old)
	if err := change(now); err != nil || proto.Equal(old, now) {
		return old, err
	}
	t.Put(now)
	return now, nil
}

// MustBe returns an error if the object's uid or resourceVersion differs from the given one. Empty ones are not compared.
func MustBe(m proto.Message, uid, resourceVersion string) error {
	meta := api.Meta(m)
	if uid != "" && uid != meta.GetUid() {
		return api.Conflict("%s has uid %s, not %s: it was deleted and created again",
			Describe(m), meta.GetUid(), uid)
	}
	if resourceVersion != "" && resourceVersion != meta.GetResourceVersion() {
		return api.Conflict("%s is at resourceVersion %s, not %s: read it again and redo the change",
			Describe(m), meta.GetResourceVersion(), resourceVersion)
	}
	return nil
}
