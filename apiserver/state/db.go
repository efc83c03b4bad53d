package state

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/store"
)

// maxAttempts bounds how often a change runs again because what it had read was changed under it.
const maxAttempts = 32

// conflictWait is how long the cache may take to show the change that was in the way.
const conflictWait = time.Second

// DB is the cache with the store behind it. Reads come from the Cache, writes are transactions.
type DB struct {
	Cache *Cache
	Store store.Store
	Now   func() time.Time
	Hosts Hosts
	// Vault seals the values of secrets; nil for a server without an identity.
	Vault  *identity.Vault
	Logger *slog.Logger
	// Bookmarks is how often a quiet watch hears the newest revision.
	Bookmarks time.Duration
	// Draining is closed when the server begins to end: watches end then.
	Draining chan struct{}

	watches atomic.Int64
}

// Watches is how many watches are open.
func (d *DB) Watches() int64 { return d.watches.Load() }

// Transact runs change and commits what it wrote, on condition that nothing it read has changed since; else it runs it
// again on the newer state. It returns when the cache has what was written, with its revision filled in. A change that
// writes nothing commits nothing.
func (d *DB) Transact(ctx context.Context, change func(*Tx) error) error {
	for range maxAttempts {
		t := d.Begin(ctx)
		if err := change(t); err != nil {
			return err
		}
		if t.WritesSoFar() == 0 {
			return nil
		}
		rev, err := t.Commit(ctx, d.Store)
		if err == nil {
			return d.Cache.Wait(ctx, rev)
		}
		if !errors.Is(err, store.ErrConflict) {
			return StoreError(err)
		}
		if err := d.awaitNewer(ctx, t.Seen.Rev); err != nil {
			return err
		}
	}
	return api.Conflict("the object changes too fast: %d attempts met a newer state each, try again", maxAttempts)
}

// awaitNewer waits for the change that was in the way of a commit: its revision is newer than everything that was seen.
// If the cache does not show it within a second, this program has a mistake. It belongs in the log, and the caller must
// not hang.
func (d *DB) awaitNewer(ctx context.Context, seen int64) error {
	bounded, cancel := context.WithTimeout(ctx, conflictWait)
	defer cancel()
	err := d.Cache.Wait(bounded, seen+1)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		d.Logger.Error("a conflict that no newer revision explains", "rev", seen)
		return nil
	}
	return err
}

// Begin makes an empty change on the newest view. To drop it instead of committing it is a dry run.
func (d *DB) Begin(ctx context.Context) *Tx {
	t := Begin(d.Cache.View())
	t.Actor, t.Now, t.Hosts, t.Vault = identity.ActorOf(ctx), d.Now(), d.Hosts, d.Vault
	return t
}

// StoreError gives the store's errors the codes of the API.
func StoreError(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), api.Code(err) == codes.ResourceExhausted:
		return err
	case errors.Is(err, store.ErrInvalid):
		return api.BadRequest("%v", err)
	default:
		return api.Unavailable("the store does not take writes: %v", err)
	}
}

// NewUID returns a uid for a new object.
func NewUID() string { return uuid.NewString() }
