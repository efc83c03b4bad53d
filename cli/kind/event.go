package kind

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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

// ByLastTime sorts events by their last occurrence.
func ByLastTime(events []*carav1.Event) []*carav1.Event {
	slices.SortStableFunc(events, func(x, y *carav1.Event) int { return x.GetLastTime().AsTime().Compare(y.GetLastTime().AsTime()) })
	return events
}

// nextOf skips events of other objects.
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
