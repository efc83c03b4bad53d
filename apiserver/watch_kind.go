package apiserver

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// watchKind is one kind's watch with a filter: an object that comes to match is Added, one that no longer matches is
// Deleted. The first state is a run of Added, closed by a Bookmark.
func watchKind[T proto.Message](ctx context.Context, s *Server, from string, match func(T) bool, send func(typ string, object T, rev string) error) error {
	return watchBeside(ctx, s, from, match, nil, send)
}

// watchBeside is watchKind for a kind whose answers depend on others: beside returns those that are other than they
// were after a transaction, though it did not touch them. Nil for none.
func watchBeside[T proto.Message](ctx context.Context, s *Server, from string, match func(T) bool, beside func(tx state.Transaction) []T, send func(typ string, object T, rev string) error) error {
	kind := state.KindOf[T]()
	var none T
	bookmark := func(rev int64) error { return send(api.WatchBookmark, none, api.FormatRevision(rev)) }
	return s.db.Follow(ctx, state.Follower{
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
			if beside == nil {
				return nil
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

// filtered says what a change is to a watcher that only sees what matches; empty: nothing. Where the state before is
// not known, since the change was read from the log, an object that does not match is Deleted: to delete what was never
// there harms nobody.
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
func (s sourceService) WatchSources(req *carav1.WatchObjectsRequest, out carav1.SourceService_WatchSourcesServer) error {
	match, err := labelMatch[*carav1.Source](req.GetLabelSelector())
	if err != nil {
		return err
	}
	return watchKind(out.Context(), s.Server, req.GetResourceVersion(), match, func(typ string, object *carav1.Source, rev string) error {
		return out.Send(&carav1.SourceEvent{Type: typ, Object: object, ResourceVersion: rev})
	})
}

// WatchEvents streams events.
func (s eventService) WatchEvents(req *carav1.WatchObjectsRequest, out carav1.EventService_WatchEventsServer) error {
	match, err := labelMatch[*carav1.Event](req.GetLabelSelector())
	if err != nil {
		return err
	}
	return watchKind(out.Context(), s.Server, req.GetResourceVersion(), match, func(typ string, object *carav1.Event, rev string) error {
		return out.Send(&carav1.EventEvent{Type: typ, Object: object, ResourceVersion: rev})
	})
}
