package apiserver

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	"github.com/caravanserai/cara/store"
)

const (
	firstChunk = 500     // objects of the first state in one message at most,
	firstBytes = 1 << 20 // and about how many bytes, so that a gRPC client's own limit of 4 MiB is never met
)

// follower is what one watch wants to hear, in this order: the first state in chunks, synced, then transactions and
// bookmarks. Each function is called from the watch's own goroutine; an error ends the watch.
type follower struct {
	kinds    []string
	from     string // resourceVersion to go on from; empty: the state of now first
	first    func(objects []state.Change) error
	synced   func(rev int64) error
	commit   func(state.Transaction) error
	bookmark func(rev int64) error
}

// follow runs one watch until ctx or the server ends. It has no queue: it reads what is recent from the cache and what
// is older from the store's log, each time it has passed on what it read before.
func (s *Server) follow(ctx context.Context, f follower) error {
	s.metrics.watchers.Inc()
	defer s.metrics.watchers.Dec()
	at, err := s.start(f)
	if err != nil {
		return err
	}
	bookmarks := time.NewTicker(s.cfg.BookmarkInterval)
	defer bookmarks.Stop()
	told := at
	for {
		txs, wake, ok := s.cache.After(at)
		if !ok {
			if at, err = s.followLog(ctx, at, f.commit); err != nil {
				return err
			}
			told = at
			continue
		}
		for _, tx := range txs {
			if err := f.commit(tx); err != nil {
				return err
			}
			at, told = tx.Rev, tx.Rev
		}
		if len(txs) > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			continue
		}
		select {
		case <-wake:
		case <-bookmarks.C:
			if told = max(told, at); f.bookmark(told) != nil {
				return ctx.Err()
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-s.draining:
			return state.ErrDraining()
		}
	}
}

// start sends the first state, where one is wanted, and returns the revision to go on from.
func (s *Server) start(f follower) (int64, error) {
	if f.from == "" {
		now := s.cache.View()
		objects, rev := now.Snapshot(f.kinds), now.Rev
		for len(objects) > 0 {
			n := chunk(objects)
			if err := f.first(objects[:n]); err != nil {
				return 0, err
			}
			objects = objects[n:]
		}
		return rev, f.synced(rev)
	}
	at, ok := api.ParseRevision(f.from)
	if !ok {
		return 0, api.Invalid("the request", api.Field("resourceVersion", "is %q; it must be one that an answer had", f.from))
	}
	if at > s.cache.Revision() {
		return 0, errGone(at)
	}
	return at, f.synced(at)
}

// chunk says how many of the objects fit into one message; at least one.
func chunk(objects []state.Change) int {
	size := 0
	for i := range objects[:min(firstChunk, len(objects))] {
		if size += proto.Size(objects[i].New); size > firstBytes && i > 0 {
			return i
		}
	}
	return min(firstChunk, len(objects))
}

// followLog reads the store's log from at until the cache's recent transactions go on from there.
func (s *Server) followLog(ctx context.Context, at int64, commit func(state.Transaction) error) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for sc, err := range s.cfg.Store.Watch(ctx, "", at) {
		switch {
		case errors.Is(err, store.ErrCompacted):
			return at, errGone(at)
		case err != nil:
			return at, storeError(err)
		}
		tx, err := state.DecodeChange(sc)
		if err != nil {
			return at, err
		}
		for i := range tx.Changes {
			tx.Changes[i].Complete()
		}
		if err := commit(tx); err != nil {
			return at, err
		}
		at = sc.Revision
		if s.cache.Reaches(at) {
			return at, nil
		}
	}
	return at, ctx.Err()
}

func errGone(at int64) error {
	return api.Gone("revision %d is not in the log of changes: list again and watch from there", at)
}
