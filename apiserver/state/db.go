package state

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/store"
)

// maxAttempts limits how often a change runs again because another transaction changed what it had read.
const maxAttempts = 32

// lateWait is how long the cache may take to show what the store has.
const lateWait = 2 * time.Second

// conflictWait is how long the cache may take to show the conflicting change.
const conflictWait = time.Second

// DB is the cache and the store. Reads come from the Cache, writes are transactions.
type DB struct {
	Cache *Cache
	Store store.Store
	Now   func() time.Time
	Hosts Hosts
	// Vault seals the values of secrets; nil for a server without an identity.
	Vault  *identity.Vault
	Logger *slog.Logger
	// Bookmarks is how often a watch without events gets the newest revision.
	Bookmarks time.Duration
	// Late allows reads of the store for what another server may have written a moment ago; nil if no other server writes to it.
	Late *rate.Limiter
	// Ahead is how long a call waits that names a newer revision than the cache has. Another server of the cluster may have answered
	// it, if there are others.
	Ahead time.Duration
	// Draining is closed when the server begins to shut down. Watches end then.
	Draining chan struct{}

	watches atomic.Int64
}

// Watches returns the number of open watches.
func (d *DB) Watches() int64 { return d.watches.Load() }

// Transact runs change and commits its writes if nothing that it read has changed since. Otherwise it runs change again on
// the newer state. It returns when the cache has the written objects, with their revision set. A change without writes
// commits nothing.
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
		if err := d.awaitNewer(ctx, t.Seen.Rev, err); err != nil {
			return err
		}
	}
	return api.Conflict("the object changes too fast: %d attempts met a newer state each, try again", maxAttempts)
}

// Reach waits for the cache to have a revision that a caller has from another server. It waits a short time only: the revision may
// be one that no server ever had.
func (d *DB) Reach(ctx context.Context, rev int64) error {
	if d.Ahead == 0 || d.Cache.Revision() >= rev {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, d.Ahead)
	defer cancel()
	if err := d.Cache.Wait(bounded, rev); err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
		return err
	}
	return nil
}

// awaitNewer waits for the change that conflicted with a commit. Its revision is newer than everything that was read. While this server
// catches up with others, the cache may be far behind it, so that the next revision is not enough. If the cache does not show it
// within a second, awaitNewer logs that and does not block the caller: a server alone has a bug then, and another one is behind.
func (d *DB) awaitNewer(ctx context.Context, seen int64, conflict error) error {
	newer := seen + 1
	if c := (*store.ConflictError)(nil); errors.As(conflict, &c) {
		newer = max(newer, c.Have)
	}
	bounded, cancel := context.WithTimeout(ctx, conflictWait)
	defer cancel()
	err := d.Cache.Wait(bounded, newer)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		d.Logger.Error("a conflict that no newer revision explains", "rev", seen)
		return nil
	}
	return err
}

// Find is Get for what authenticates a caller. Another server may have written it a moment ago, so Find looks into the store before it
// says that there is none. Callers without an identity can cause such reads, so their rate is limited: above it, a credential of a moment ago
// is unknown, and its caller tries again. A store that does not answer is an error: the caller may be known to the other servers.
func Find[T proto.Message](ctx context.Context, d *DB, name string) (found T, ok bool, err error) {
	found, ok = Get[T](d.Cache, name)
	if ok || d.Late == nil || name == "" || !d.Late.Allow() {
		return found, ok, nil
	}
	if err := d.CatchUp(ctx, KindOf[T](), name); err != nil {
		return found, false, err
	}
	found, ok = Get[T](d.Cache, name)
	return found, ok, nil
}

// CatchUp waits a short time until the cache has an object as it is in the store, because another server may have written it a
// moment ago. It does nothing on a server alone. Its error has no words of the store, because callers without an identity read it.
func (d *DB) CatchUp(ctx context.Context, kind, name string) error {
	if d.Late == nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, lateWait)
	defer cancel()
	kv, err := d.Store.Get(bounded, Key(kind, name))
	if err == nil {
		err = d.Cache.Wait(bounded, kv.Modified)
	}
	switch {
	case err == nil, errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrInvalid): // an invalid name has no object
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return api.Unavailable("this server does not know whether there is a %s with this name, because its store does not answer: try again in some seconds, or at another server", kind)
}

// Begin returns an empty transaction on the newest view. Dropping it without a commit is a dry run.
func (d *DB) Begin(ctx context.Context) *Tx { return d.beginOn(ctx, d.Cache.View()) }

func (d *DB) beginOn(ctx context.Context, seen *View) *Tx {
	t := Begin(seen)
	t.Actor, t.Now, t.Hosts, t.Vault, t.Lease = identity.ActorOf(ctx), d.Now(), d.Hosts, d.Vault, store.LeaseOf(ctx)
	return t
}

// StoreError converts the store's errors to errors of the API.
func StoreError(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), api.Code(err) == codes.ResourceExhausted:
		return err
	case errors.Is(err, store.ErrLeaseLost):
		return api.Unavailable("%v", err)
	case errors.Is(err, store.ErrAgentMoved):
		return api.Conflict("%v", err)
	case errors.Is(err, store.ErrInvalid):
		return api.BadRequest("%v", err)
	default:
		return api.Unavailable("the store does not take writes: %v", err)
	}
}

// NewUID returns a UID for a new object.
func NewUID() string { return uuid.NewString() }
