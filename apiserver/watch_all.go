package apiserver

import (
	"slices"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// watchable are the kinds that may be watched: no values of secrets and no tokens pass a stream.
var watchable = []string{ //nolint:gochecknoglobals // a table that never changes
	api.KindProject, api.KindNode, api.KindSource, api.KindEvent, api.KindClaim, api.KindOverride, api.KindTombstone,
}

// Watch streams several kinds, a whole transaction in each message.
func (s watchService) Watch(req *carav1.WatchRequest, out grpc.ServerStreamingServer[carav1.WatchResponse]) error {
	for i, kind := range req.GetKinds() {
		if !slices.Contains(watchable, kind) {
			return api.Invalid("the request", api.Field(api.Element("kinds", i), "is %q; it must be one of %v", kind, watchable))
		}
	}
	kinds := slices.Compact(slices.Sorted(slices.Values(req.GetKinds())))
	return s.db.Follow(out.Context(), state.Follower{
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
