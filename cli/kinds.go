package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// kind is how one kind of object is fetched, shown and deleted.
type kind struct {
	name    string // as api.Kind spells it
	plural  string
	aliases []string
	columns []string // of the plain table
	wide    []string // added with -o wide
	row     func(m proto.Message, now time.Time) []term.Cell
	list    func(ctx context.Context, conn grpc.ClientConnInterface, f filter) ([]proto.Message, error)
	// get is nil where the API has no call for one object: it is picked out of the list.
	get func(ctx context.Context, conn grpc.ClientConnInterface, name string) (proto.Message, error)
	// watch is nil for kinds that cannot be watched.
	watch func(ctx context.Context, conn grpc.ClientConnInterface, f filter) (func() (watchEvent, error), error)
	// remove is nil for kinds that nobody deletes by hand. Projects go their own way, in delete.go.
	remove func(ctx context.Context, conn grpc.ClientConnInterface, name string) error
}

// filter narrows a list or a watch down, on the server's side.
type filter struct {
	name     string // of the one object to watch
	selector string
	phases   []string
	node     string
	owner    string
	object   ref // whose events
}

// watchEvent is one change, whatever the kind: Added, Modified, Deleted or Bookmark.
type watchEvent struct {
	typ    string
	object proto.Message
}

func kinds() []kind {
	return []kind{projectKind(), nodeKind(), sourceKind(), secretKind(), eventKind(), overrideKind(), tombstoneKind(), tokenKind()}
}

// lower is the kind as messages and references spell it: `project`.
func (k kind) lower() string { return strings.ToLower(k.name) }

func (k kind) head(wide bool) []string {
	if wide {
		return append(append([]string{}, k.columns...), k.wide...)
	}
	return k.columns
}

// findKind takes `project`, `projects`, `p`, `Project`.
func findKind(name string) (kind, error) {
	var known []string
	for _, k := range kinds() {
		if strings.EqualFold(name, k.name) || strings.EqualFold(name, k.plural) || slices.Contains(k.aliases, name) {
			return k, nil
		}
		known = append(known, k.plural)
	}
	return kind{}, fmt.Errorf("%q is no kind of object: there are %s", name, strings.Join(known, ", "))
}

// ref names an object, or a whole kind where name is empty.
type ref struct {
	kind kind
	name string
}

func (r ref) String() string { return term.Line(r.kind.lower()) + "/" + term.Line(r.name) }

// parseRefs takes `KIND`, `KIND NAME...` and `KIND/NAME...`.
func parseRefs(args []string) ([]ref, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("say what, as in `project NAME` or `project/NAME`")
	}
	if !strings.Contains(args[0], "/") {
		k, err := findKind(args[0])
		switch {
		case err != nil:
			return nil, err
		case len(args) == 1:
			return []ref{{kind: k}}, nil
		}
		refs := make([]ref, len(args)-1)
		for i, name := range args[1:] {
			refs[i] = ref{k, bare(k, name)}
		}
		return refs, nil
	}
	refs := make([]ref, len(args))
	for i, arg := range args {
		typ, name, ok := strings.Cut(arg, "/")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is no reference such as project/web", arg)
		}
		k, err := findKind(typ)
		if err != nil {
			return nil, err
		}
		refs[i] = ref{k, name}
	}
	return refs, nil
}

// bare takes `project/web` as `web` where a project is meant.
func bare(k kind, name string) string {
	if typ, after, ok := strings.Cut(name, "/"); ok {
		if found, err := findKind(typ); err == nil && found.name == k.name {
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

// event is what the events of the per-kind watches have in common.
type event[T proto.Message] interface {
	GetType() string
	GetObject() T
}

func receiver[E event[T], T proto.Message](stream interface{ Recv() (E, error) }, err error) (func() (watchEvent, error), error) {
	return func() (watchEvent, error) {
		e, err := stream.Recv()
		if err != nil {
			return watchEvent{}, err
		}
		return watchEvent{e.GetType(), e.GetObject()}, nil
	}, err
}

// byName asks for one object.
func byName(name string) *carav1.GetRequest { return &carav1.GetRequest{Name: name} }

// byLabel asks for those that a selector leaves.
func byLabel(f filter) *carav1.ListRequest { return &carav1.ListRequest{LabelSelector: f.selector} }

// removing drops the answer of a deletion, which says nothing.
func removing[T any](_ T, err error) error { return err }
