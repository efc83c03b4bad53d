package cli

import (
	"cmp"
	"context"
	"fmt"
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

func secretKind() kind {
	return kind{
		name: api.KindSecret, plural: "secrets",
		columns: []string{"NAME", "TYPE", "KEYS", "AGE"},
		row: func(m proto.Message, now time.Time) []term.Cell {
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
		list: func(ctx context.Context, conn grpc.ClientConnInterface, f filter) ([]proto.Message, error) {
			l, err := carav1.NewSecretServiceClient(conn).ListSecrets(ctx, byLabel(f))
			return messages(l.GetItems(), err)
		},
		get: func(ctx context.Context, conn grpc.ClientConnInterface, name string) (proto.Message, error) {
			return message(carav1.NewSecretServiceClient(conn).GetSecret(ctx, byName(name)))
		},
		remove: func(ctx context.Context, conn grpc.ClientConnInterface, name string) error {
			return removing(carav1.NewSecretServiceClient(conn).DeleteSecret(ctx, &carav1.DeleteRequest{Name: name}))
		},
	}
}

func eventKind() kind {
	return kind{
		name: api.KindEvent, plural: "events", aliases: []string{"ev"},
		columns: []string{"LAST", "TYPE", "REASON", "OBJECT", "MESSAGE"},
		wide:    []string{"COUNT", "ACTOR", "FIRST"},
		row:     eventRow,
		list: func(ctx context.Context, conn grpc.ClientConnInterface, f filter) ([]proto.Message, error) {
			l, err := carav1.NewEventServiceClient(conn).ListEvents(ctx, &carav1.ListEventsRequest{Kind: f.object.kind.name, Name: f.object.name})
			return messages(byLastTime(l.GetItems()), err)
		},
		watch: func(ctx context.Context, conn grpc.ClientConnInterface, f filter) (func() (watchEvent, error), error) {
			next, err := receiver(carav1.NewEventServiceClient(conn).WatchEvents(ctx, &carav1.WatchObjectsRequest{}))
			return func() (watchEvent, error) { return nextOf(f.object, next) }, err
		},
	}
}

// byLastTime puts what happened last at the end, also where it had happened before.
func byLastTime(events []*carav1.Event) []*carav1.Event {
	slices.SortStableFunc(events, func(x, y *carav1.Event) int { return x.GetLastTime().AsTime().Compare(y.GetLastTime().AsTime()) })
	return events
}

// nextOf leaves out events of other objects than the one asked for.
func nextOf(object ref, next func() (watchEvent, error)) (watchEvent, error) {
	for {
		e, err := next()
		if err != nil || e.typ == api.WatchBookmark || object.name == "" {
			return e, err
		}
		if o := e.object.(*carav1.Event).GetObject(); o.GetKind() == object.kind.name && o.GetName() == object.name {
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

func overrideKind() kind {
	return kind{
		name: api.KindOverride, plural: "overrides",
		columns: []string{"PROJECT", "SCOPE", "ACTOR", "REASON", "SINCE", "UNTIL"},
		row: func(m proto.Message, now time.Time) []term.Cell {
			o := m.(*carav1.Override)
			return []term.Cell{
				term.Text(o.GetMetadata().GetName()), term.Text(o.Scope), term.Text(o.Actor), term.Text(o.Reason), term.Ago(now, o.Since), overrideEnd(now, o),
			}
		},
		list: func(ctx context.Context, conn grpc.ClientConnInterface, f filter) ([]proto.Message, error) {
			l, err := carav1.NewProjectServiceClient(conn).ListOverrides(ctx, byLabel(f))
			return messages(l.GetItems(), err)
		},
	}
}

func overrideEnd(now time.Time, o *carav1.Override) term.Cell {
	switch {
	case o.GetUntilHash() != "":
		return term.Text("git's next change")
	case o.GetUntil() == nil:
		return term.Text("cleared by hand")
	}
	return term.Until(now, o.GetUntil())
}

func tombstoneKind() kind {
	return kind{
		name: api.KindTombstone, plural: "tombstones",
		columns: []string{"PROJECT", "REASON", "ACTOR", "OWNER", "WHEN"},
		row: func(m proto.Message, now time.Time) []term.Cell {
			t := m.(*carav1.Tombstone)
			return []term.Cell{term.Text(t.GetMetadata().GetName()), term.Text(t.Reason), term.Text(t.Actor), term.Text(t.Owner), term.Ago(now, t.Time)}
		},
		list: func(ctx context.Context, conn grpc.ClientConnInterface, f filter) ([]proto.Message, error) {
			l, err := carav1.NewProjectServiceClient(conn).ListTombstones(ctx, byLabel(f))
			return messages(l.GetItems(), err)
		},
	}
}

func tokenKind() kind {
	return kind{
		name: api.KindToken, plural: "tokens",
		columns: []string{"NAME", "ROLE", "PREFIX", "USES", "EXPIRES", "AGE"},
		wide:    []string{"HOSTS", "NODES", "LABELS"},
		row: func(m proto.Message, now time.Time) []term.Cell {
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
				term.Text(strings.Join(t.Hosts, ",")), term.Text(strings.Join(t.NodeNames, ",")), term.Text(pairs(t.Labels)),
			}
		},
		list: func(ctx context.Context, conn grpc.ClientConnInterface, f filter) ([]proto.Message, error) {
			l, err := carav1.NewTokenServiceClient(conn).ListTokens(ctx, byLabel(f))
			return messages(l.GetItems(), err)
		},
		get: func(ctx context.Context, conn grpc.ClientConnInterface, name string) (proto.Message, error) {
			l, err := carav1.NewTokenServiceClient(conn).ListTokens(ctx, &carav1.ListRequest{})
			for _, t := range l.GetItems() {
				if t.GetMetadata().GetName() == name {
					return t, nil
				}
			}
			return nil, cmp.Or(err, fmt.Errorf("token %q not found", name))
		},
		remove: func(ctx context.Context, conn grpc.ClientConnInterface, name string) error {
			return removing(carav1.NewTokenServiceClient(conn).DeleteToken(ctx, &carav1.DeleteRequest{Name: name}))
		},
	}
}
