package objects

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// watchKind watches one kind with the filter of a request: an object that begins to match is Added, one that no longer matches is
// Deleted. The initial state is a sequence of Added events, followed by a Bookmark. Existing objects are sent as show shows them.
func watchKind[T proto.Message](ctx context.Context, db *state.DB, req *carav1.WatchObjectsRequest, show func(T) T, send func(typ string, object T, rev string) error) error {
	match, err := labelMatch[T](req.GetLabelSelector())
	if err != nil {
		return err
	}
	nothing := func(state.Transaction) []T { return nil }
	return watchBeside(ctx, db, req.GetResourceVersion(), match, nothing, show, send)
}

// watchBeside is watchKind for a kind whose answers depend on other objects: beside returns the objects whose answer a
// transaction changed without writing them.
func watchBeside[T proto.Message](ctx context.Context, db *state.DB, from string, match func(T) bool, beside func(tx state.Transaction) []T, show func(T) T, tell func(typ string, object T, rev string) error) error {
	kind := state.KindOf[T]()
	var none T
	bookmark := func(rev int64) error { return tell(api.WatchBookmark, none, api.FormatRevision(rev)) }
	send := func(typ string, object T, rev string) error {
		if typ != api.WatchDeleted {
			object = show(object)
		}
		return tell(typ, object, rev)
	}
	return db.Follow(ctx, state.Follower{
		Kinds:    []string{kind},
		From:     from,
		Synced:   bookmark,
		Bookmark: bookmark,
		First: func(objects []state.Change) error {
			for i := range objects {
				if object := objects[i].New.(T); match(object) {
					if err := send(api.WatchAdded, object, ""); err != nil {
						return err
					}
				}
			}
			return nil
		},
		Commit: func(tx state.Transaction) error {
			rev := api.FormatRevision(tx.Rev)
			for i := range tx.Changes {
				if tx.Changes[i].Kind != kind {
					continue
				}
				typ, object := filtered(&tx.Changes[i], match)
				if typ == "" {
					continue
				}
				if err := send(typ, object, rev); err != nil {
					return err
				}
			}
			for _, object := range beside(tx) {
				if match(object) {
					if err := send(api.WatchModified, object, rev); err != nil {
						return err
					}
				}
			}
			return nil
		},
	})
}

// filtered returns the event type of a change for a watcher with a filter; empty means no event. If the old state is
// unknown, because the change came from the log, an object that does not match is Deleted. Watchers ignore the deletion of
// an unknown object.
func filtered[T proto.Message](ch *state.Change, match func(T) bool) (string, T) {
	var none T
	matches := ch.New != nil && match(ch.New.(T))
	matched := ch.Old != nil && match(ch.Old.(T))
	switch {
	case matches && matched:
		return api.WatchModified, ch.New.(T)
	case matches && ch.Old == nil && !ch.Created:
		return api.WatchModified, ch.New.(T)
	case matches:
		return api.WatchAdded, ch.New.(T)
	case ch.New == nil && ch.Old == nil:
		return api.WatchDeleted, state.NameOnly(ch.Kind, ch.Name).(T)
	case ch.New == nil && matched:
		return api.WatchDeleted, ch.Old.(T)
	case matched, ch.Old == nil && !ch.Created:
		return api.WatchDeleted, ch.New.(T)
	default:
		return "", none
	}
}

// WatchSources streams sources.
func (s Sources) WatchSources(req *carav1.WatchObjectsRequest, out carav1.SourceService_WatchSourcesServer) error {
	return watchKind(out.Context(), s.DB, req, asStored, func(typ string, object *carav1.Source, rev string) error {
		return out.Send(&carav1.SourceEvent{Type: typ, Object: object, ResourceVersion: rev})
	})
}

// WatchEvents streams events.
func (s Events) WatchEvents(req *carav1.WatchObjectsRequest, out carav1.EventService_WatchEventsServer) error {
	return watchKind(out.Context(), s.DB, req, asStored, func(typ string, object *carav1.Event, rev string) error {
		return out.Send(&carav1.EventEvent{Type: typ, Object: object, ResourceVersion: rev})
	})
}

// Watch streams several kinds. Each message has a whole transaction.
func (s Watches) Watch(req *carav1.WatchRequest, out grpc.ServerStreamingServer[carav1.WatchResponse]) error {
	watchable := state.Watched()
	for i, kind := range req.GetKinds() {
		if !slices.Contains(watchable, kind) {
			return api.Invalid("the request", api.Field(api.Element("kinds", i), "is %q; it must be one of %v", kind, watchable))
		}
	}
	kinds := slices.Compact(slices.Sorted(slices.Values(req.GetKinds())))
	return s.DB.Follow(out.Context(), state.Follower{
		Kinds: kinds,
		From:  req.GetResourceVersion(),
		First: func(objects []state.Change) error {
			msg := &carav1.WatchResponse{Changes: make([]*carav1.Change, len(objects))}
			for i := range objects {
				msg.Changes[i] = &carav1.Change{Object: api.Wrap(objects[i].New)}
			}
			return out.Send(msg)
		},
		Synced: func(rev int64) error {
			return out.Send(&carav1.WatchResponse{ResourceVersion: api.FormatRevision(rev), Synced: true})
		},
		Commit: func(tx state.Transaction) error {
			msg := &carav1.WatchResponse{ResourceVersion: api.FormatRevision(tx.Rev)}
			for i := range tx.Changes {
				if slices.Contains(kinds, tx.Changes[i].Kind) {
					msg.Changes = append(msg.Changes, tx.Changes[i].Wire)
				}
			}
			if len(msg.Changes) == 0 {
				return nil
			}
			return out.Send(msg)
		},
		Bookmark: func(rev int64) error {
			return out.Send(&carav1.WatchResponse{ResourceVersion: api.FormatRevision(rev)})
		},
	})
}
