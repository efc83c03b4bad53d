package state

import (
	"slices"
	"strings"

	"github.com/google/btree"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// index finds objects by other properties than their names. It belongs to a view and does not change after the view is
// published.
type index struct {
	byNode   nameIndex // node -> projects assigned to it
	holders  nameIndex // node -> projects that it holds, although they are assigned to another node
	movingTo nameIndex // node -> projects that move to it
	secrets  nameIndex // Secret -> projects that use it
	byOwner  nameIndex // owner -> projects
	claims   nameIndex // project -> names of claims (SOURCE/PROJECT)
	byObject nameIndex // KIND/NAME -> names of events
	volumes  nameIndex // node -> names of volumes
}

func newIndex() *index {
	return &index{
		byNode: newNameIndex(), holders: newNameIndex(), movingTo: newNameIndex(), secrets: newNameIndex(), byOwner: newNameIndex(),
		claims: newNameIndex(), byObject: newNameIndex(), volumes: newNameIndex(),
	}
}

// clone returns a copy that can be changed while others read x.
func (x *index) clone() *index {
	c := *x
	for _, n := range []*nameIndex{&c.byNode, &c.holders, &c.movingTo, &c.secrets, &c.byOwner, &c.claims, &c.byObject, &c.volumes} {
		n.shared = true
	}
	return &c
}

// update applies one change.
func (x *index) update(ch *Change) {
	switch oldOrNew(ch).(type) {
	case *carav1.Project:
		o, n := As[*carav1.Project](ch.Old), As[*carav1.Project](ch.New)
		x.byNode.move(ch.Name, o.GetStatus().GetNodeRef(), n.GetStatus().GetNodeRef())
		x.holders.move(ch.Name, o.GetStatus().GetHeldBy(), n.GetStatus().GetHeldBy())
		x.movingTo.move(ch.Name, o.GetStatus().GetMove().GetTo(), n.GetStatus().GetMove().GetTo())
		x.secrets.moveAll(ch.Name, api.SecretNames(o.GetSpec()), api.SecretNames(n.GetSpec()))
		x.byOwner.move(ch.Name, o.GetMetadata().GetOwner(), n.GetMetadata().GetOwner())
	case *carav1.Claim:
		_, project, _ := strings.Cut(ch.Name, "/")
		x.claims.move(ch.Name, keyIf(ch.Old, project), keyIf(ch.New, project))
	case *carav1.Event:
		x.byObject.move(ch.Name, objectKey(As[*carav1.Event](ch.Old)), objectKey(As[*carav1.Event](ch.New)))
	case *carav1.Volume:
		x.volumes.move(ch.Name, As[*carav1.Volume](ch.Old).GetStatus().GetNode(), As[*carav1.Volume](ch.New).GetStatus().GetNode())
	}
}

// objectKey is the key of an event's object.
func objectKey(e *carav1.Event) string {
	if e == nil {
		return ""
	}
	return e.GetObject().GetKind() + "/" + e.GetObject().GetName()
}

func oldOrNew(ch *Change) proto.Message {
	if ch.New != nil {
		return ch.New
	}
	return ch.Old
}

// As returns m as a T, or nil.
func As[T proto.Message](m proto.Message) T {
	t, _ := m.(T)
	return t
}

func keyIf(m proto.Message, key string) string {
	if m == nil {
		return ""
	}
	return key
}

// nameIndex holds a set of names for each key.
type nameIndex struct {
	sorted *btree.BTreeG[underKey]
	// shared means that other views read sorted. It is cloned at the first change, since most transactions change few indexes.
	shared bool
}

type underKey struct{ key, name string }

func newNameIndex() nameIndex {
	return nameIndex{sorted: btree.NewG(degree/2, func(a, b underKey) bool {
		return a.key < b.key || a.key == b.key && a.name < b.name
	})}
}

// move moves name from one key to another. The empty key is not stored.
func (n *nameIndex) move(name, old, to string) {
	if old == to {
		return
	}
	if n.shared {
		n.sorted, n.shared = n.sorted.Clone(), false
	}
	if old != "" {
		n.sorted.Delete(underKey{old, name})
	}
	if to != "" {
		n.sorted.ReplaceOrInsert(underKey{to, name})
	}
}

// moveAll moves name from some keys to others. Both are sorted.
func (n *nameIndex) moveAll(name string, old, to []string) {
	if slices.Equal(old, to) {
		return
	}
	for _, key := range old {
		n.move(name, key, "")
	}
	for _, key := range to {
		n.move(name, "", key)
	}
}

// under returns the names under key, sorted.
func (n nameIndex) under(key string) []string {
	out := []string{}
	n.sorted.AscendGreaterOrEqual(underKey{key: key}, func(u underKey) bool {
		if u.key != key {
			return false
		}
		out = append(out, u.name)
		return true
	})
	return out
}

// names returns all names, those under the first key first.
func (n nameIndex) names() []string {
	out := make([]string, 0, n.sorted.Len())
	n.sorted.Ascend(func(u underKey) bool {
		out = append(out, u.name)
		return true
	})
	return out
}

// ProjectsOnNode returns the names of the projects that are assigned to a node.
func (v *View) ProjectsOnNode(node string) []string { return v.index.byNode.under(node) }

// ProjectsHeldBy returns the names of the projects that a node holds: they are assigned to another node already.
func (v *View) ProjectsHeldBy(node string) []string { return v.index.holders.under(node) }

// HeldProjects returns the names of the projects that some node holds.
func (v *View) HeldProjects() []string { return v.index.holders.names() }

// ProjectsMovingTo returns the names of the projects that move to a node.
func (v *View) ProjectsMovingTo(node string) []string { return v.index.movingTo.under(node) }

// ProjectsUsingSecret returns the names of the projects that use a Secret.
func (v *View) ProjectsUsingSecret(secret string) []string { return v.index.secrets.under(secret) }

// ProjectsOfOwner returns the names of the projects of an owner.
func (v *View) ProjectsOfOwner(owner string) []string { return v.index.byOwner.under(owner) }

// VolumesOnNode returns the names of the Managed volumes whose data is on a node.
func (v *View) VolumesOnNode(node string) []string { return v.index.volumes.under(node) }

// EventsOn returns the names of the events about an object, oldest first.
func (v *View) EventsOn(kind, name string) []string { return v.index.byObject.under(kind + "/" + name) }

// ClaimsOn returns the names of the claims on a project: SOURCE/PROJECT.
func (v *View) ClaimsOn(project string) []string { return v.index.claims.under(project) }
