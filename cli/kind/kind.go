// Package kind says how caractrl fetches, shows, watches and deletes each kind of object. A new kind is a file here and a
// row in All.
package kind

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Kind is how one kind of object is fetched, shown and deleted.
type Kind struct {
	Name    string // as api.Kind spells it
	Plural  string
	aliases []string
	Columns []string // of the plain table
	wide    []string // added with -o wide
	Row     func(m proto.Message, now time.Time) []term.Cell
	// Describe is nil for kinds whose table shows all there is.
	Describe func(ctx context.Context, p Page, m proto.Message) error
	List     func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]proto.Message, error)
	// Get is nil where the API has no call for one object: it is picked out of the list.
	Get func(ctx context.Context, conn grpc.ClientConnInterface, name string) (proto.Message, error)
	// Watch is nil for kinds that cannot be watched.
	Watch func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) (func() (Change, error), error)
	// Remove is nil for kinds that nobody deletes by hand. Projects go their own way, in delete.go.
	Remove func(ctx context.Context, conn grpc.ClientConnInterface, name string) error
}

// Filter narrows a list or a watch down, on the server's side.
type Filter struct {
	Name     string // of the one object to watch
	Selector string
	Phases   []string
	Node     string
	Owner    string
	Object   Ref // whose events
}

// Change is what a watch tells, whatever the kind: Added, Modified, Deleted or Bookmark.
type Change struct {
	Type   string
	Object proto.Message
}

// All kinds, in the order in which completion offers them.
func All() []Kind {
	return []Kind{Project(), Node(), Source(), Secret(), Event(), Override(), Tombstone(), Token()}
}

// Lower is the kind as messages and references spell it: `project`.
func (k Kind) Lower() string { return strings.ToLower(k.Name) }

// Head is the header of the kind's table.
func (k Kind) Head(wide bool) []string {
	if wide {
		return append(append([]string{}, k.Columns...), k.wide...)
	}
	return k.Columns
}

// Find takes `project`, `projects`, `p`, `Project`.
func Find(name string) (Kind, error) {
	var known []string
	for _, k := range All() {
		if strings.EqualFold(name, k.Name) || strings.EqualFold(name, k.Plural) || slices.Contains(k.aliases, name) {
			return k, nil
		}
		known = append(known, k.Plural)
	}
	return Kind{}, fmt.Errorf("unknown kind %q; the kinds are %s", name, strings.Join(known, ", "))
}

// Ref names an object, or a whole kind where name is empty.
type Ref struct {
	Kind Kind
	Name string
}

func (r Ref) String() string { return term.Line(r.Kind.Lower()) + "/" + term.Line(r.Name) }

// ParseRefs takes `KIND`, `KIND NAME...` and `KIND/NAME...`.
func ParseRefs(args []string) ([]Ref, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("name an object, as in `project NAME` or `project/NAME`")
	}
	if !strings.Contains(args[0], "/") {
		k, err := Find(args[0])
		switch {
		case err != nil:
			return nil, err
		case len(args) == 1:
			return []Ref{{Kind: k}}, nil
		}
		refs := make([]Ref, len(args)-1)
		for i, name := range args[1:] {
			refs[i] = Ref{k, Bare(k, name)}
		}
		return refs, nil
	}
	refs := make([]Ref, len(args))
	for i, arg := range args {
		typ, name, ok := strings.Cut(arg, "/")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q does not name an object: write KIND/NAME, such as project/web", arg)
		}
		k, err := Find(typ)
		if err != nil {
			return nil, err
		}
		refs[i] = Ref{k, name}
	}
	return refs, nil
}

// Bare takes `project/web` as `web` where a project is meant.
func Bare(k Kind, name string) string {
	if typ, after, ok := strings.Cut(name, "/"); ok {
		if found, err := Find(typ); err == nil && found.Name == k.Name {
			return after
		}
	}
	return name
}

// messages turns the list of one kind into a list of messages.
func messages[T proto.Message](items []T, err error) ([]proto.Message, error) {
	out := make([]proto.Message, len(items))
	for i, item := range items {
		out[i] = item
	}
	return out, err
}

// message keeps a nil of one kind from becoming a message that is not nil.
func message[T proto.Message](m T, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// watched is what the events of the per-kind watches have in common.
type watched[T proto.Message] interface {
	GetType() string
	GetObject() T
}

func receiver[E watched[T], T proto.Message](stream interface{ Recv() (E, error) }, err error) (func() (Change, error), error) {
	return func() (Change, error) {
		e, err := stream.Recv()
		if err != nil {
			return Change{}, err
		}
		return Change{e.GetType(), e.GetObject()}, nil
	}, err
}

// ByName asks for one object.
func ByName(name string) *carav1.GetRequest { return &carav1.GetRequest{Name: name} }

// byLabel asks for those that a selector leaves.
func byLabel(f Filter) *carav1.ListRequest { return &carav1.ListRequest{LabelSelector: f.Selector} }

// removing drops the answer of a deletion, which says nothing.
func removing[T any](_ T, err error) error { return err }

// Pairs are labels as people write them: `a=b,c=d`.
func Pairs(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ", ")
}
