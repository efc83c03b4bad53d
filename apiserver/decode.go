package apiserver

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// decodeChange reads one transaction of the store's log.
func decodeChange(sc store.Change) (transaction, error) {
	tx := transaction{rev: sc.Revision, changes: make([]change, 0, len(sc.Events))}
	for _, ev := range sc.Events {
		ch, ok, err := decodeEvent(ev)
		if err != nil {
			return transaction{}, err
		}
		if ok {
			tx.changes = append(tx.changes, ch)
		}
	}
	return tx, nil
}

// decodeEvent reads what a transaction did to one key; ok is false for keys that are not objects.
func decodeEvent(ev store.Event) (ch change, ok bool, err error) {
	kind, name, empty, ok := parseKey(ev.KV.Key)
	if !ok {
		return change{}, false, nil
	}
	ch = change{kind: kind, name: name, created: !ev.Delete && ev.KV.Created == ev.KV.Modified}
	if ev.Delete {
		return ch, true, nil
	}
	if ch.new, err = decode(empty, ev.KV.Value, ev.KV.Modified); err != nil {
		return change{}, false, fmt.Errorf("read %s: %w", ev.KV.Key, err)
	}
	return ch, true, nil
}

// complete makes the form that watchers send. Secrets and tokens are never watched.
func (ch *change) complete() {
	switch ch.kind {
	case api.KindSecret, api.KindToken, kindHost:
		return
	}
	switch {
	case ch.new != nil:
		ch.wire = &carav1.Change{Object: api.Wrap(ch.new)}
	case ch.old != nil:
		ch.wire = &carav1.Change{Deleted: true, Object: api.Wrap(ch.old)}
	default:
		ch.wire = &carav1.Change{Deleted: true, Object: api.Wrap(nameOnly(ch.kind, ch.name))}
	}
}

// nameOnly is what is known of an object whose deletion was read from the store's log.
func nameOnly(kind, name string) proto.Message {
	for i := range kinds {
		if kinds[i].kind != kind {
			continue
		}
		m := kinds[i].empty.ProtoReflect().New().Interface()
		setMeta(m, &carav1.ObjectMeta{Name: name})
		if claim, ok := m.(*carav1.Claim); ok {
			source, project, _ := strings.Cut(name, "/")
			claim.Spec = &carav1.ClaimSpec{
				Source:  source,
				Project: &carav1.Project{Metadata: &carav1.ObjectMeta{Name: project}},
			}
		}
		return m
	}
	return nil
}

// setMeta puts meta into the field `metadata`, which every object has.
func setMeta(m proto.Message, meta *carav1.ObjectMeta) {
	r := m.ProtoReflect()
	if f := r.Descriptor().Fields().ByName("metadata"); f != nil {
		r.Set(f, protoreflect.ValueOfMessage(meta.ProtoReflect()))
	}
}
