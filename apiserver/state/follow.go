package state

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/store"
)

const (
	firstChunk = 500     // maximum number of objects of the initial state in one message
	firstBytes = 1 << 20 // approximate bytes in such a message, so that it stays below a gRPC client's default limit of 4 MiB
)

// Follower receives one watch, in this order: the initial state in chunks, synced, then transactions and bookmarks. All
// functions are called from the watch's own goroutine. An error ends the watch.
type Follower struct {
	Kinds    []string
	From     string // resourceVersion to continue from; if empty, the watch begins with the current state
	First    func(objects []Change) error
	Synced   func(rev int64) error
	Commit   func(Transaction) error
	Bookmark func(rev int64) error
}

// Follow runs one watch until ctx or the server ends. It has no queue: each time it has delivered what it read, it reads
// on, recent transactions from the cache and older ones from the store's log.
func (d *DB) Follow(ctx context.Context, f Follower) error {
	d.watches.Add(1)
	defer d.watches.Add(-1)
	at, err := d.start(ctx, f)
	if err != nil {
		return err
	}
	bookmarks := time.NewTicker(d.Bookmarks)
	defer bookmarks.Stop()
	told := at
	for {
		txs, wake, ok := d.Cache.After(at)
		if !ok {
			if at, err = d.followLog(ctx, at, f.Commit); err != nil {
				return err
			}
			told = at
			continue
		}
		for _, tx := range txs {
			if err := f.Commit(tx); err != nil {
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
			if told = max(told, at); f.Bookmark(told) != nil {
				return ctx.Err()
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-d.Draining:
			return ErrDraining()
		}
	}
}

// start sends the initial state, if requested, and returns the revision to continue from.
func (d *DB) start(ctx context.Context, f Follower) (int64, error) {
	if f.From == "" {
		now := d.Cache.View()
		if err := now.chunks(f.Kinds, f.First); err != nil {
			return 0, err
		}
		return now.Rev, f.Synced(now.Rev)
	}
	at, ok := api.ParseRevision(f.From)
	if !ok {
		return 0, api.Invalid("the request", api.Field("resourceVersion", "is %q; it must be one that an answer had", f.From))
	}
	if err := d.Reach(ctx, at); err != nil {
		return 0, err
	}
	if at > d.Cache.Revision() {
		return 0, errGone(at)
	}
	return at, f.Synced(at)
}

// chunks calls each with every object of some kinds, kind by kind, sorted by name. It has one chunk at a time in memory, because the
// objects of some kinds are decoded for it.
func (v *View) chunks(kinds []string, each func([]Change) error) (err error) {
	var chunk []Change
	size := 0
	for _, kind := range kinds {
		v.Ascend(kind, "", "", func(e *Entry) bool {
			m := e.Message()
			n := proto.Size(m)
			if len(chunk) == firstChunk || len(chunk) > 0 && size+n > firstBytes {
				err, chunk, size = each(chunk), nil, 0
			}
			chunk, size = append(chunk, Change{Kind: kind, Name: e.Name, New: m}), size+n
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	if len(chunk) == 0 {
		return nil
	}
	return each(chunk)
}

// followLog reads the store's log from at until the cache's recent transactions continue from there.
func (d *DB) followLog(ctx context.Context, at int64, commit func(Transaction) error) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for sc, err := range d.Store.Watch(ctx, at) {
		switch {
		case errors.Is(err, store.ErrCompacted):
			return at, errGone(at)
		case err != nil:
			return at, StoreError(err)
		}
		tx, err := DecodeChange(sc)
		if err != nil {
			return at, err
		}
		for i := range tx.Changes {
			if tx.Changes[i].Kind == KindStaged { // the log has no changes for the claims that a head activated
				return at, errGone(at)
			}
			tx.Changes[i].Complete()
		}
		if len(tx.Changes) > 0 {
			if err := commit(tx); err != nil {
				return at, err
			}
		}
		at = sc.Revision
		if d.Cache.Reaches(at) {
			return at, nil
		}
	}
	return at, ctx.Err()
}

func errGone(at int64) error {
	return api.Gone("revision %d is not in the log of changes: list again and watch from there", at)
}
