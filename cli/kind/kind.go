// Package kind defines how caractrl fetches, shows, watches and deletes each kind of object. A new kind needs a file here
// and an entry in All.
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

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Kind defines how one kind of object is fetched, shown and deleted.
type Kind struct {
	Name    string // name as in package api
	Plural  string
	aliases []string
	Columns []string // of the plain table
	wide    []string // added with -o wide
	Row     func(m proto.Message, now time.Time) []term.Cell
	// Describe is nil for kinds whose table shows everything.
	Describe func(ctx context.Context, p Page, m proto.Message) error
	List     func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]proto.Message, error)
	// Get is nil if the API has no call for a single object. Then the object is taken from the list.
	Get func(ctx context.Context, conn grpc.ClientConnInterface, name string) (proto.Message, error)
	// Watch is nil for kinds that cannot be watched.
	Watch func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) (func() (Change, error), error)
	// Remove is nil for kinds that users cannot delete, and for projects and volumes, which delete.go deletes.
	Remove func(ctx context.Context, conn grpc.ClientConnInterface, name string) error
}

// Filter limits a list or a watch. The server applies it.
type Filter struct {
	Name     string // of a single object to watch
	Selector string
	Phases   []string
	Node     string
	Owner    string
	Project  string
	State    string
	Object   Ref // list the events of this object
}

// Change is a watch event of any kind: Added, Modified, Deleted or Bookmark.
type Change struct {
	Type   string
	Object proto.Message
}

// All returns all kinds, in the order of completion.
func All() []Kind {
	return []Kind{Project(), Node(), Source(), Secret(), Volume(), Backup(), Route(), Event(), Override(), Tombstone(), Token(), Session(), Server()}
}

// Deletable reports whether users can delete objects of the kind.
func (k Kind) Deletable() bool {
	return k.Remove != nil || k.Name == api.KindProject || k.Name == api.KindVolume
}

// Lower returns the kind as in messages and references: `project`.
func (k Kind) Lower() string { return strings.ToLower(k.Name) }

// Head returns the header of the kind's table.
func (k Kind) Head(wide bool) []string {
	if wide {
		return slices.Concat(k.Columns, k.wide)
	}
	return k.Columns
}

// Find finds a kind by a name such as `project`, `projects`, `p` or `Project`.
func Find(name string) (Kind, error) {
	for _, k := range All() {
		if strings.EqualFold(name, k.Name) || strings.EqualFold(name, k.Plural) || slices.Contains(k.aliases, name) {
			return k, nil
		}
	}
	return Kind{}, fmt.Errorf("unknown kind %q; the kinds are %s", name, Words(All()...))
}

// Words joins the plurals of kinds.
func Words(kinds ...Kind) string {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = k.Plural
	}
	return strings.Join(words, ", ")
}

// Named returns the objects with these names.
func (k Kind) Named(ctx context.Context, conn grpc.ClientConnInterface, names ...string) (found []proto.Message, err error) {
	get := k.Get
	if get == nil {
		all, err := k.List(ctx, conn, Filter{})
		if err != nil {
			return nil, err
		}
		get = func(_ context.Context, _ grpc.ClientConnInterface, name string) (proto.Message, error) {
			if i := slices.IndexFunc(all, func(m proto.Message) bool { return api.Meta(m).GetName() == name }); i >= 0 {
				return all[i], nil
			}
			return nil, fmt.Errorf("%s %q not found", k.Lower(), name)
		}
	}
	for _, name := range names {
		m, err := get(ctx, conn, name)
		if err != nil {
			return nil, err
		}
		found = append(found, m)
	}
	return found, nil
}

// Ref refers to an object, or to a whole kind if the name is empty.
type Ref struct {
	Kind Kind
	Name string
}

func (r Ref) String() string { return term.Line(r.Kind.Lower()) + "/" + term.Line(r.Name) }

// ParseRefs parses `KIND`, `KIND NAME...` and `KIND/NAME...`.
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

// Bare returns `web` for `project/web` if k is the kind project.
func Bare(k Kind, name string) string {
	if typ, after, ok := strings.Cut(name, "/"); ok {
		if found, err := Find(typ); err == nil && found.Name == k.Name {
			return after
		}
	}
	return name
}

// messages converts a list of one kind to a list of messages.
func messages[T proto.Message](items []T, err error) ([]proto.Message, error) {
	out := make([]proto.Message, len(items))
	for i, item := range items {
		out[i] = item
	}
	return out, err
}

// lister, getter and remover return the calls of a kind from those of its service, whose client the first argument returns.
func lister[C, Q any, L interface{ GetItems() []T }, T proto.Message](
	client func(grpc.ClientConnInterface) C, call func(C, context.Context, Q, ...grpc.CallOption) (L, error), request func(Filter) Q,
) func(context.Context, grpc.ClientConnInterface, Filter) ([]proto.Message, error) {
	return func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]proto.Message, error) {
		l, err := call(client(conn), ctx, request(f))
		return messages(l.GetItems(), err)
	}
}

func getter[C any, T proto.Message](
	client func(grpc.ClientConnInterface) C, call func(C, context.Context, *carav1.GetRequest, ...grpc.CallOption) (T, error),
) func(context.Context, grpc.ClientConnInterface, string) (proto.Message, error) {
	return func(ctx context.Context, conn grpc.ClientConnInterface, name string) (proto.Message, error) {
		m, err := call(client(conn), ctx, ByName(name))
		if err != nil {
			return nil, err // and not a typed nil
		}
		return m, nil
	}
}

func remover[C, T any](
	client func(grpc.ClientConnInterface) C, call func(C, context.Context, *carav1.DeleteRequest, ...grpc.CallOption) (T, error),
) func(context.Context, grpc.ClientConnInterface, string) error {
	return func(ctx context.Context, conn grpc.ClientConnInterface, name string) error {
		_, err := call(client(conn), ctx, &carav1.DeleteRequest{Name: name})
		return err
	}
}

// watched is the common part of the watch events of all kinds.
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

// ByName returns a request for one object.
func ByName(name string) *carav1.GetRequest { return &carav1.GetRequest{Name: name} }

// byLabel returns a request with the filter's label selector.
func byLabel(f Filter) *carav1.ListRequest { return &carav1.ListRequest{LabelSelector: f.Selector} }

// Pairs formats labels: `a=b, c=d`.
func Pairs(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ", ")
}
