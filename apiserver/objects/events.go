package objects

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/plan"
)

// CreateEvent records an event of an agent or a loop.
func (s Events) CreateEvent(ctx context.Context, req *carav1.CreateEventRequest) (*carav1.Event, error) {
	in := req.GetEvent()
	var out *carav1.Event
	err := s.DB.Transact(ctx, func(t *state.Tx) error {
		if err := rules.MayTellOf(t, in.GetObject()); err != nil {
			return err
		}
		out = rules.RecordEvent(t, proto.CloneOf(in.GetObject()), api.EventType(in.GetType()), api.Reason(in.GetReason()), in.GetMessage())
		return nil
	})
	return out, err
}

// ListEvents returns events of all objects or of one, oldest first unless the request says otherwise.
func (s Events) ListEvents(_ context.Context, req *carav1.ListEventsRequest) (*carav1.ListEventsResponse, error) {
	match := func(e *carav1.Event) bool {
		return (req.GetKind() == "" || req.GetKind() == e.GetObject().GetKind()) &&
			(req.GetName() == "" || req.GetName() == e.GetObject().GetName())
	}
	out := &carav1.ListEventsResponse{ApiVersion: api.APIVersion, Kind: api.ListKind(api.KindEvent)}
	switch view := s.DB.Cache.View(); {
	case req.GetKind() != "" && req.GetName() != "":
		out.Items, out.Metadata = state.PageOf(view, namesOnPage(view, req), req.GetLimit(), match)
	case req.GetNewestFirst():
		out.Items, out.Metadata = state.PageBack(view, "", req.GetPageToken(), req.GetLimit(), match)
	default:
		out.Items, out.Metadata = state.Page(view, "", req.GetPageToken(), req.GetLimit(), match)
	}
	return out, nil
}

// namesOnPage returns the names of the events about one object that come after the page token, in the order of the request.
func namesOnPage(view *state.View, req *carav1.ListEventsRequest) []string {
	names := view.EventsOn(req.GetKind(), req.GetName())
	token := req.GetPageToken()
	if !req.GetNewestFirst() {
		return slices.DeleteFunc(names, func(name string) bool { return name <= token })
	}
	slices.Reverse(names)
	return slices.DeleteFunc(names, func(name string) bool { return token != "" && name >= token })
}

// trimBatch limits what one transaction of TrimHistory removes.
const trimBatch = 25

// TrimHistory removes old events, old tombstones, and ended overrides without a project.
func (s Events) TrimHistory(ctx context.Context, req *carav1.TrimHistoryRequest) (*carav1.TrimHistoryResponse, error) {
	out := &carav1.TrimHistoryResponse{}
	for _, of := range []struct {
		count *int32
		drop  func(*state.Tx) int
	}{
		{&out.Events, func(t *state.Tx) int {
			return dropOld(t, req.GetEventsBefore(), func(e *carav1.Event) (*timestamppb.Timestamp, bool) { return e.GetLastTime(), true })
		}},
		{&out.Tombstones, func(t *state.Tx) int {
			return dropOld(t, req.GetTombstonesBefore(), func(g *carav1.Tombstone) (*timestamppb.Timestamp, bool) { return g.GetTime(), !keepsExpired(t, g) })
		}},
		{&out.Overrides, dropEndedOverrides},
	} {
		for n := 1; n > 0; *of.count += int32(n) {
			if err := s.DB.Transact(ctx, func(t *state.Tx) error { n = of.drop(t); return nil }); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// dropOld removes up to one batch of objects that are older than before.
func dropOld[T proto.Message](t *state.Tx, before *timestamppb.Timestamp, when func(T) (*timestamppb.Timestamp, bool)) int {
	if before == nil {
		return 0
	}
	items, _ := state.Page(t.Seen, "", "", trimBatch, func(m T) bool {
		at, may := when(m)
		return may && at.AsTime().Before(before.AsTime())
	})
	n := 0
	for _, m := range items {
		if _, ok := state.Read[T](t, api.Meta(m).GetName()); ok {
			t.Remove(state.KindName(m), api.Meta(m).GetName())
			n++
		}
	}
	return n
}

// keepsExpired reports whether a tombstone prevents an expired project from coming back, because a source still declares
// it.
func keepsExpired(t *state.Tx, g *carav1.Tombstone) bool {
	return g.GetReason() == api.ReasonExpired && len(t.Seen.ClaimsOn(g.GetMetadata().GetName())) > 0
}

// dropEndedOverrides removes ended overrides whose project is gone. If the project exists, OverrideProject clears the
// override and updates the project.
func dropEndedOverrides(t *state.Tx) int {
	items, _ := state.Page(t.Seen, "", "", trimBatch, func(o *carav1.Override) bool {
		return t.Seen.Entry(api.KindProject, o.GetMetadata().GetName()) == nil && !plan.InForce(o, t.Now)
	})
	for _, o := range items {
		t.Object(api.KindProject, o.GetMetadata().GetName())
		t.Object(api.KindOverride, o.GetMetadata().GetName())
		rules.EndOverride(t, o, "its time is over")
	}
	return len(items)
}
