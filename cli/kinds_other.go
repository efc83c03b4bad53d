package cli

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func secretKind() kind {
	client := func(a *app) (carav1.SecretServiceClient, error) {
		conn, err := a.dial()
		return carav1.NewSecretServiceClient(conn), err
	}
	return kind{
		name: api.KindSecret, plural: "secrets", aliases: []string{"secret"}, short: "Secrets by name and keys; values are never shown",
		columns: []string{"NAME", "TYPE", "KEYS", "AGE"},
		row: func(m proto.Message, now time.Time) []cell {
			s := m.(*carav1.Secret)
			typ := s.Type
			if typ == "" {
				typ = "Opaque"
			}
			return []cell{
				text(s.GetMetadata().GetName()), text(typ), text(strings.Join(s.Keys, ",")),
				text(since(now, s.GetMetadata().GetCreationTimestamp())),
			}
		},
		list: func(ctx context.Context, a *app, o getOptions) ([]proto.Message, error) {
			c, err := client(a)
			if err != nil {
				return nil, err
			}
			l, err := c.ListSecrets(ctx, &carav1.ListRequest{LabelSelector: o.selector})
			return messages(l.GetItems()), err
		},
		get: func(ctx context.Context, a *app, name string) (proto.Message, error) {
			c, err := client(a)
			if err != nil {
				return nil, err
			}
			return c.GetSecret(ctx, &carav1.GetRequest{Name: name})
		},
	}
}

func eventKind() kind {
	return kind{
		name: api.KindEvent, plural: "events", aliases: []string{"event", "ev"}, short: "What happened, oldest first",
		columns: []string{"LAST", "TYPE", "REASON", "OBJECT", "MESSAGE"},
		wide:    []string{"COUNT", "ACTOR", "FIRST"},
		row:     eventRow,
		list: func(ctx context.Context, a *app, o getOptions) ([]proto.Message, error) {
			c, err := a.events()
			if err != nil {
				return nil, err
			}
			typ, name := objectRef(o.object)
			l, err := c.ListEvents(ctx, &carav1.ListEventsRequest{Kind: typ, Name: name})
			return messages(l.GetItems()), err
		},
		watch: func(ctx context.Context, a *app, _ getOptions) (func() (watchEvent, error), error) {
			c, err := a.events()
			if err != nil {
				return nil, err
			}
			s, err := c.WatchEvents(ctx, &carav1.WatchObjectsRequest{})
			return receiver[*carav1.EventEvent](grpc.ServerStreamingClient[carav1.EventEvent](s)), err
		},
	}
}

func eventRow(m proto.Message, now time.Time) []cell {
	e := m.(*carav1.Event)
	colour := plain
	if e.Type == "Warning" {
		colour = yellow
	}
	return []cell{
		text(ago(now, e.LastTime)),
		{dash(line(e.Type)), colour},
		text(e.Reason),
		text(strings.ToLower(e.GetObject().GetKind()) + "/" + e.GetObject().GetName()),
		text(e.Message),
		count(e.Count), text(e.Actor), text(ago(now, e.FirstTime)),
	}
}

// objectRef takes `project/web` apart.
func objectRef(ref string) (kindName, name string) {
	typ, name, ok := strings.Cut(ref, "/")
	if !ok {
		return "", ref
	}
	for _, k := range kinds() {
		if strings.EqualFold(k.name, typ) || k.plural == typ {
			return k.name, name
		}
	}
	return typ, name
}

func overrideKind() kind {
	return kind{
		name: api.KindOverride, plural: "overrides", aliases: []string{"override"}, short: "Where a person has suspended git's say",
		columns: []string{"PROJECT", "SCOPE", "ACTOR", "REASON", "SINCE", "UNTIL"},
		row: func(m proto.Message, now time.Time) []cell {
			o := m.(*carav1.Override)
			end := until(now, o.Until)
			switch {
			case o.UntilHash != "":
				end = "git's next change"
			case o.Until == nil:
				end = "cleared by hand"
			}
			return []cell{
				text(o.GetMetadata().GetName()), text(o.Scope), text(o.Actor), text(o.Reason), text(ago(now, o.Since)), text(end),
			}
		},
		list: func(ctx context.Context, a *app, _ getOptions) ([]proto.Message, error) {
			c, err := a.projects()
			if err != nil {
				return nil, err
			}
			l, err := c.ListOverrides(ctx, &carav1.ListRequest{})
			return messages(l.GetItems()), err
		},
	}
}

func tombstoneKind() kind {
	return kind{
		name: api.KindTombstone, plural: "tombstones", aliases: []string{"tombstone"}, short: "Projects that are gone, and why",
		columns: []string{"PROJECT", "REASON", "ACTOR", "OWNER", "WHEN"},
		row: func(m proto.Message, now time.Time) []cell {
			t := m.(*carav1.Tombstone)
			return []cell{
				text(t.GetMetadata().GetName()), text(t.Reason), text(t.Actor), text(t.Owner), text(ago(now, t.Time)),
			}
		},
		list: func(ctx context.Context, a *app, _ getOptions) ([]proto.Message, error) {
			c, err := a.projects()
			if err != nil {
				return nil, err
			}
			l, err := c.ListTombstones(ctx, &carav1.ListRequest{})
			return messages(l.GetItems()), err
		},
	}
}
