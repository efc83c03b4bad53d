package state

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// DecodeChange decodes one transaction of the store's log.
func DecodeChange(sc store.Change) (Transaction, error) {
	tx := Transaction{Rev: sc.Revision, Changes: make([]Change, 0, len(sc.Events))}
	for _, ev := range sc.Events {
		ch, ok, err := decodeEvent(ev)
		if err != nil {
			return Transaction{}, err
		}
		if ok {
			tx.Changes = append(tx.Changes, ch)
		}
	}
	return tx, nil
}

// decodeEvent decodes what a transaction did to one key; ok is false for keys that are not objects.
func decodeEvent(ev store.Event) (ch Change, ok bool, err error) {
	kind, name, empty, ok := parseKey(ev.KV.Key)
	if !ok {
		return Change{}, false, nil
	}
	ch = Change{Kind: kind, Name: name, Created: !ev.Delete && ev.KV.Created == ev.KV.Modified}
	if ev.Delete {
		return ch, true, nil
	}
	if ch.New, err = Decode(empty, ev.KV.Value, ev.KV.Modified); err != nil {
		return Change{}, false, fmt.Errorf("read %s: %w", ev.KV.Key, err)
	}
	if keptEncoded(kind) {
		ch.kept = string(ev.KV.Value)
	}
	return ch, true, nil
}

// Complete sets the form that watchers get, for a watched kind.
func (ch *Change) Complete() {
	if k := rowOf(ch.Kind); k == nil || !k.watched {
		return
	}
	switch {
	case ch.New != nil:
		ch.Wire = &carav1.Change{Object: api.Wrap(ch.New)}
	case ch.Old != nil:
		ch.Wire = &carav1.Change{Deleted: true, Object: api.Wrap(ch.Old)}
	default:
		ch.Wire = &carav1.Change{Deleted: true, Object: api.Wrap(NameOnly(ch.Kind, ch.Name))}
	}
}

// NameOnly returns an object with only its name, for a deletion that was read from the store's log.
func NameOnly(kind, name string) proto.Message {
	m := rowOf(kind).empty.ProtoReflect().New().Interface()
	SetMeta(m, &carav1.ObjectMeta{Name: name})
	if claim, ok := m.(*carav1.Claim); ok {
		source, project, _ := strings.Cut(name, "/")
		claim.Spec = &carav1.ClaimSpec{Source: source, Project: &carav1.Project{Metadata: &carav1.ObjectMeta{Name: project}}}
	}
	return m
}

// SetMeta sets the field `metadata`, which every object has.
func SetMeta(m proto.Message, meta *carav1.ObjectMeta) {
	r := m.ProtoReflect()
	if f := r.Descriptor().Fields().ByName("metadata"); f != nil {
		r.Set(f, protoreflect.ValueOfMessage(meta.ProtoReflect()))
	}
}
