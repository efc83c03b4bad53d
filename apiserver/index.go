package apiserver

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// set is a set of names.
type set map[string]struct{}

// index finds objects by more than their names. Guarded by the cache's mutex.
type index struct {
	byNode   map[string]set // node -> projects assigned to it
	byOwner  map[string]set // owner -> projects
	claims   map[string]set // project -> names of claims (SOURCE/PROJECT)
	byObject map[string]set // KIND/NAME -> names of events
}

func newIndex() index {
	return index{byNode: map[string]set{}, byOwner: map[string]set{}, claims: map[string]set{}, byObject: map[string]set{}}
}

// update follows one change.
func (x *index) update(ch *change) {
	switch oldOrNew(ch).(type) {
	case *carav1.Project:
		o, n := as[*carav1.Project](ch.old), as[*carav1.Project](ch.new)
		swap(x.byNode, ch.name, o.GetStatus().GetNodeRef(), n.GetStatus().GetNodeRef())
		swap(x.byOwner, ch.name, o.GetMetadata().GetOwner(), n.GetMetadata().GetOwner())
	case *carav1.Claim:
		_, project, _ := strings.Cut(ch.name, "/")
		swap(x.claims, ch.name, keyIf(ch.old, project), keyIf(ch.new, project))
	case *carav1.Event:
		swap(x.byObject, ch.name, objectKey(as[*carav1.Event](ch.old)), objectKey(as[*carav1.Event](ch.new)))
	}
}

// objectKey is what an event is about.
func objectKey(e *carav1.Event) string {
	if e == nil {
		return ""
	}
	return e.GetObject().GetKind() + "/" + e.GetObject().GetName()
}

func oldOrNew(ch *change) proto.Message {
	if ch.new != nil {
		return ch.new
	}
	return ch.old
}

// as is m as a T, or nil.
func as[T proto.Message](m proto.Message) T {
	t, _ := m.(T)
	return t
}

func keyIf(m proto.Message, key string) string {
	if m == nil {
		return ""
	}
	return key
}

// swap moves name from one key to another; the empty key is none.
func swap(in map[string]set, name, old, to string) {
	if old == to {
		return
	}
	if old != "" {
		delete(in[old], name)
		if len(in[old]) == 0 {
			delete(in, old)
		}
	}
	if to != "" {
		if in[to] == nil {
			in[to] = set{}
		}
		in[to][name] = struct{}{}
	}
}

// names returns what stands under key, sorted.
func (s set) names() []string {
	out := make([]string, 0, len(s))
	for name := range s {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// projectsOnNode returns the names of the projects that are assigned to a node.
func (c *cache) projectsOnNode(node string) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.index.byNode[node].names()
}

// projectsOfOwner returns the names of the projects of an owner.
func (c *cache) projectsOfOwner(owner string) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.index.byOwner[owner].names()
}

// eventsOn returns the names of the events about an object, oldest first.
func (c *cache) eventsOn(kind, name string) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.index.byObject[kind+"/"+name].names()
}
