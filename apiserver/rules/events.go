package rules

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/text"
)

const (
	// countWithin is how long an equal event increases the count of the earlier one.
	countWithin = time.Hour
	// EventsPerObject limits the events of one object; the oldest is dropped.
	EventsPerObject = 100
	maxEventMessage = 4096
)

// RecordEvent records an event about an object, in the transaction that causes it. If an equal event is less than an hour
// old, its count increases instead.
func RecordEvent(t *state.Tx, object *carav1.ObjectRef, typ api.EventType, reason api.Reason, message string) *carav1.Event {
	message = text.Clip(message, maxEventMessage)
	now := timestamppb.New(t.Now)
	names := t.Seen.EventsOn(object.GetKind(), object.GetName())
	for _, name := range slices.Backward(names) {
		if !t.Seen.Entry(api.KindEvent, name).MayHave(message) {
			continue
		}
		old, ok := state.Get[*carav1.Event](t.Seen, name)
		if !ok || old.GetType() != string(typ) || old.GetReason() != string(reason) || old.GetMessage() != message ||
			old.GetActor() != t.Actor.Name || old.GetObject().GetUid() != object.GetUid() ||
			t.Now.Sub(old.GetLastTime().AsTime()) > countWithin {
			continue
		}
		if old, ok = state.Read[*carav1.Event](t, name); !ok {
			continue
		}
		again := proto.CloneOf(old)
		again.Count++
		again.LastTime = now
		t.Put(again)
		return again
	}
	if len(names) >= EventsPerObject {
		t.Remove(api.KindEvent, names[0])
	}
	e := &carav1.Event{
		ApiVersion: api.APIVersion,
		Kind:       api.KindEvent,
		Metadata:   &carav1.ObjectMeta{Name: eventName(t.Now.Add(time.Duration(t.WritesSoFar()))), CreationTimestamp: now},
		Type:       string(typ), Reason: string(reason), Message: message, Object: object, Actor: t.Actor.Name,
		Count: 1, FirstTime: now, LastTime: now,
	}
	t.Put(e)
	return e
}

// eventName sorts by time. Events of one transaction are a nanosecond apart, which keeps their order.
func eventName(now time.Time) string {
	id := uuid.New()
	return fmt.Sprintf("%016x-%x", uint64(now.UnixNano()), id[:4])
}

// RefTo returns a reference to an object for an event.
func RefTo(m proto.Message) *carav1.ObjectRef {
	meta := api.Meta(m)
	return &carav1.ObjectRef{Kind: state.KindName(m), Name: meta.GetName(), Uid: meta.GetUid()}
}

// MayTellOf limits a node to events about itself and the projects assigned to it.
func MayTellOf(t *state.Tx, object *carav1.ObjectRef) error {
	node := t.Actor.Node()
	if node == "" || object.GetKind() == api.KindNode && object.GetName() == node {
		return nil
	}
	if p, ok := state.Get[*carav1.Project](t.Seen, object.GetName()); object.GetKind() == api.KindProject && ok && p.GetStatus().GetNodeRef() == node {
		return nil
	}
	return api.Forbidden("%s tells of itself and of its own projects, not of %s %q",
		t.Actor.Name, lowerKind(object.GetKind()), object.GetName())
}
