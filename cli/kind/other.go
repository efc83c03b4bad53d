package kind

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Secret is the kind Secret. Its values never leave the server.
func Secret() Kind {
	return Kind{
		Name: api.KindSecret, Plural: "secrets",
		Columns: []string{"NAME", "TYPE", "KEYS", "AGE"},
		Row: func(m proto.Message, now time.Time) []term.Cell {
			s := m.(*carav1.Secret)
			typ := s.Type
			if typ == "" {
				typ = api.SecretOpaque
			}
			return []term.Cell{
				term.Text(s.GetMetadata().GetName()), term.Text(typ), term.Text(strings.Join(s.Keys, ",")),
				term.Since(now, s.GetMetadata().GetCreationTimestamp()),
			}
		},
		List: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]proto.Message, error) {
			l, err := carav1.NewSecretServiceClient(conn).ListSecrets(ctx, byLabel(f))
			return messages(l.GetItems(), err)
		},
		Get: func(ctx context.Context, conn grpc.ClientConnInterface, name string) (proto.Message, error) {
			return message(carav1.NewSecretServiceClient(conn).GetSecret(ctx, ByName(name)))
		},
		Remove: func(ctx context.Context, conn grpc.ClientConnInterface, name string) error {
			return removing(carav1.NewSecretServiceClient(conn).DeleteSecret(ctx, &carav1.DeleteRequest{Name: name}))
		},
	}
}

// Event is the kind Event.
func Event() Kind {
	return Kind{
		Name: api.KindEvent, Plural: "events", aliases: []string{"ev"},
		Columns: []string{"LAST", "TYPE", "REASON", "OBJECT", "MESSAGE"},
		wide:    []string{"COUNT", "ACTOR", "FIRST"},
		Row:     eventRow,
		List: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]proto.Message, error) {
			l, err := carav1.NewEventServiceClient(conn).ListEvents(ctx, &carav1.ListEventsRequest{Kind: f.Object.Kind.Name, Name: f.Object.Name})
			return messages(ByLastTime(l.GetItems()), err)
		},
		Watch: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) (func() (Change, error), error) {
			next, err := receiver(carav1.NewEventServiceClient(conn).WatchEvents(ctx, &carav1.WatchObjectsRequest{}))
			return func() (Change, error) { return nextOf(f.Object, next) }, err
		},
	}
}

// ByLastTime puts what happened last at the end, also where it had happened before.
func ByLastTime(events []*carav1.Event) []*carav1.Event {
	slices.SortStableFunc(events, func(x, y *carav1.Event) int { return x.GetLastTime().AsTime().Compare(y.GetLastTime().AsTime()) })
	return events
}

// nextOf leaves out events of other objects than the one asked for.
func nextOf(object Ref, next func() (Change, error)) (Change, error) {
	for {
		e, err := next()
		if err != nil || e.Type == api.WatchBookmark || object.Name == "" {
			return e, err
		}
		if o := e.Object.(*carav1.Event).GetObject(); o.GetKind() == object.Kind.Name && o.GetName() == object.Name {
			return e, nil
		}
	}
}

func eventRow(m proto.Message, now time.Time) []term.Cell {
	e := m.(*carav1.Event)
	typ := term.Text(e.Type)
	if e.Type == api.EventWarning {
		typ.Colour = term.Yellow
	}
	return []term.Cell{
		term.Ago(now, e.LastTime),
		typ,
		term.Text(e.Reason),
		term.Text(strings.ToLower(e.GetObject().GetKind()) + "/" + e.GetObject().GetName()),
		term.Text(e.Message),
		term.Count(e.Count), term.Text(e.Actor), term.Ago(now, e.FirstTime),
	}
}

// Override is the kind Override: what people decided against git.
func Override() Kind {
	return Kind{
		Name: api.KindOverride, Plural: "overrides",
		Columns: []string{"PROJECT", "SCOPE", "ACTOR", "REASON", "SINCE", "UNTIL"},
		Row: func(m proto.Message, now time.Time) []term.Cell {
			o := m.(*carav1.Override)
			return []term.Cell{
				term.Text(o.GetMetadata().GetName()), term.Text(o.Scope), term.Text(o.Actor), term.Text(o.Reason), term.Ago(now, o.Since), OverrideEnd(now, o),
			}
		},
		List: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]proto.Message, error) {
			l, err := carav1.NewProjectServiceClient(conn).ListOverrides(ctx, byLabel(f))
			return messages(l.GetItems(), err)
		},
	}
}

// OverrideEnd is when an override ends.
func OverrideEnd(now time.Time, o *carav1.Override) term.Cell {
	switch {
	case o.GetUntilHash() != "":
		return term.Text("git's next change")
	case o.GetUntil() == nil:
		return term.Text("cleared by hand")
	}
	return term.Until(now, o.GetUntil())
}

// Tombstone is the kind Tombstone: projects that are gone, and why.
func Tombstone() Kind {
	return Kind{
		Name: api.KindTombstone, Plural: "tombstones",
		Columns: []string{"PROJECT", "REASON", "ACTOR", "OWNER", "WHEN"},
		Row: func(m proto.Message, now time.Time) []term.Cell {
			t := m.(*carav1.Tombstone)
			return []term.Cell{term.Text(t.GetMetadata().GetName()), term.Text(t.Reason), term.Text(t.Actor), term.Text(t.Owner), term.Ago(now, t.Time)}
		},
		List: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]proto.Message, error) {
			l, err := carav1.NewProjectServiceClient(conn).ListTombstones(ctx, byLabel(f))
			return messages(l.GetItems(), err)
		},
	}
}

// Token is the kind Token, without its secret.
func Token() Kind {
	return Kind{
		Name: api.KindToken, Plural: "tokens",
		Columns: []string{"NAME", "ROLE", "PREFIX", "USES", "EXPIRES", "AGE"},
		wide:    []string{"HOSTS", "NODES", "LABELS"},
		Row: func(m proto.Message, now time.Time) []term.Cell {
			t := m.(*carav1.Token)
			uses := "-"
			switch {
			case t.UsesLeft > 0:
				uses = strconv.Itoa(int(t.UsesLeft))
			case t.UsesLeft < 0:
				uses = "none left"
			}
			return []term.Cell{
				term.Text(t.GetMetadata().GetName()), term.Text(t.Role), term.Text(t.NamePrefix), term.Text(uses),
				term.Until(now, t.ExpireAt), term.Since(now, t.GetMetadata().GetCreationTimestamp()),
				term.Text(strings.Join(t.Hosts, ",")), term.Text(strings.Join(t.NodeNames, ",")), term.Text(Pairs(t.Labels)),
			}
		},
		List: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]proto.Message, error) {
			l, err := carav1.NewTokenServiceClient(conn).ListTokens(ctx, byLabel(f))
			return messages(l.GetItems(), err)
		},
		Get: func(ctx context.Context, conn grpc.ClientConnInterface, name string) (proto.Message, error) {
			l, err := carav1.NewTokenServiceClient(conn).ListTokens(ctx, &carav1.ListRequest{})
			for _, t := range l.GetItems() {
				if t.GetMetadata().GetName() == name {
					return t, nil
				}
			}
			return nil, cmp.Or(err, fmt.Errorf("token %q not found", name))
		},
		Remove: func(ctx context.Context, conn grpc.ClientConnInterface, name string) error {
			return removing(carav1.NewTokenServiceClient(conn).DeleteToken(ctx, &carav1.DeleteRequest{Name: name}))
		},
	}
}

// Pairs are labels as people write them: `a=b,c=d`.
func Pairs(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ", ")
}
