package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/store"
)

const (
	leaseRetry = time.Second            // after an error while a lease is awaited
	renewAgain = 100 * time.Millisecond // after an error of a renewal
)

// LeaseCopy is the name of the lease of a program that copies all objects while no server runs.
const LeaseCopy = "copy"

// retiredLock is the value of the key lock once no server of an older version runs. It lasts, so none of them can take the lock again. They
// show it as the name of the active server.
const retiredLock = "all servers of a newer version: upgrade this one"

// Lease is a right that one store at a time holds, until it is released or lost. Work that needs it must end when Lost is closed,
// which is some time before etcd can give the right to another store.
type Lease struct {
	*connection
	store.Lease
	id   clientv3.LeaseID
	ttl  time.Duration
	once sync.Once
	lost chan struct{}
}

// Candidate is a server that wants a lease.
type Candidate struct {
	// Server is its ID, which others can read.
	Server string
	// Delay is called when the lease is free, and returns how long to leave it to other candidates. Nil is no delay.
	Delay func() time.Duration
	// Waiting is called with the ID of the server that holds the lease, or with an error of etcd. It may be called again with the
	// same values.
	Waiting func(holder string, err error)
}

// leases takes and gives up leases, and knows those that its store holds.
type leases struct {
	*connection
	mu    sync.Mutex
	held  map[string]*Lease
	ended bool // all are released, because the store closes
}

// holds is the condition that a lease is still the same.
func holds(k keys, l store.Lease) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(k.lease(l.Name)), "=", l.Created)
}

// Acquire waits until this store has the lease of a name, and returns it. The caller releases it. Close releases all.
func (h *leases) Acquire(ctx context.Context, name string, c Candidate) (*Lease, error) {
	for {
		l, holder, err := h.tryLease(ctx, name, c)
		switch {
		case ctx.Err() != nil:
			if l != nil {
				l.Release() //nolint:contextcheck // also when ctx has ended
			}
			return nil, ctx.Err()
		case h.closed.Err() != nil || h.closing():
			return nil, store.ErrClosed
		case err != nil:
			c.Waiting("", err)
			err = h.pause(ctx, leaseRetry)
		case l != nil:
			return l, nil
		case holder == nil: // another one was faster
		default:
			c.Waiting(string(holder.Value), nil)
			err = h.awaitChange(ctx, string(holder.Key), holder.ModRevision)
		}
		if err != nil {
			return nil, err
		}
	}
}

// tryLease takes a lease if it is free. Otherwise it returns the holder's key.
func (h *leases) tryLease(ctx context.Context, name string, c Candidate) (*Lease, *mvccpb.KeyValue, error) {
	key := h.keys.lease(name)
	holder, err := h.readKey(ctx, key)
	if err == nil && holder == nil {
		holder, err = h.olderVersion(ctx)
	}
	free := []clientv3.Cmp{missing(key), clientv3.Compare(clientv3.Value(h.keys.lock()), "=", retiredLock)}
	if err == nil && holder == nil && name != LeaseCopy {
		free = append(free, missing(h.keys.lease(LeaseCopy)))
		holder, err = h.readKey(ctx, h.keys.lease(LeaseCopy))
	}
	if err != nil || holder != nil {
		return nil, holder, err
	}
	if c.Delay != nil {
		if err := h.pause(ctx, c.Delay()); err != nil {
			return nil, nil, err
		}
	}
	l, err := h.grant(ctx, key, c.Server, h.cfg.Lease, free...)
	if err != nil || l == nil {
		return nil, nil, err
	}
	l.Name = name
	if !h.add(l) {
		l.Release() //nolint:contextcheck // also when ctx has ended
		return nil, nil, store.ErrClosed
	}
	return l, nil, nil
}

// grant writes a key that lasts as long as its lease, which it keeps. The result is nil if a condition does not hold.
func (h *leases) grant(ctx context.Context, key, value string, ttl time.Duration, conditions ...clientv3.Cmp) (*Lease, error) {
	bounded, cancel, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	granted := time.Now()
	lease, err := h.client.Grant(bounded, int64(ttl/time.Second))
	if err != nil {
		return nil, h.failedWrite(ctx, err)
	}
	answer, err := h.client.Txn(bounded).If(conditions...).Then(clientv3.OpPut(key, value, clientv3.WithLease(lease.ID))).Commit()
	if err != nil { // if the key was written nevertheless, it ends with the lease
		return nil, h.failedWrite(ctx, err)
	}
	if !answer.Succeeded {
		_, err := h.client.Revoke(bounded, lease.ID)
		return nil, h.failed(ctx, err)
	}
	if !time.Now().Before(lastMoment(granted, ttl)) {
		_, _ = h.client.Revoke(bounded, lease.ID) // otherwise it ends by itself
		return nil, fmt.Errorf("etcd, or this server, was so slow that a lease of %s was almost over when it was granted", ttl)
	}
	l := &Lease{connection: h.connection, Lease: store.Lease{Created: answer.Header.Revision}, id: lease.ID, ttl: ttl, lost: make(chan struct{})}
	h.running.Go(func() { l.keep(granted) }) //nolint:contextcheck // it lives as long as the lease
	return l, nil
}

// olderVersion returns the key lock while a server of an older version holds it. Such a server runs all loops, so nobody else may have
// a lease. When it has ended, this server writes retiredLock.
func (h *leases) olderVersion(ctx context.Context) (*mvccpb.KeyValue, error) {
	kv, err := h.readKey(ctx, h.keys.lock())
	if err != nil || kv != nil && string(kv.Value) != retiredLock {
		return kv, err
	}
	if kv != nil {
		return nil, nil
	}
	key := h.keys.lock()
	_, err = h.writeIf(ctx, missing(key), clientv3.OpPut(key, retiredLock))
	return nil, err
}

// awaitChange returns when a key has changed. It returns after the time of a lease in any case.
func (c *connection) awaitChange(ctx context.Context, key string, seen int64) error {
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Lease)
	defer cancel()
	defer context.AfterFunc(c.closed, cancel)() //nolint:contextcheck // it also ends with the store
	for m := range c.client.Watch(clientv3.WithRequireLeader(bounded), key, clientv3.WithRev(seen+1)) {
		if m.Err() != nil {
			return c.pause(ctx, leaseRetry)
		}
		if len(m.Events) > 0 {
			break
		}
	}
	return ctx.Err()
}

// Lost returns a channel that is closed when the work must end.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

func (l *Lease) lose() { l.once.Do(func() { close(l.lost) }) }

// lastMoment is when the work under a lease must have ended: a sixth of its time is left.
func lastMoment(renewed time.Time, ttl time.Duration) time.Time { return renewed.Add(ttl * 5 / 6) }

// keep renews the lease until it is released or lost. The time counts from before a request was sent, so the work ends before
// etcd gives the lease away, with a sixth of its time left. Each renewal is a request of its own with a short time-out, so
// that one member that hangs does not cost the lease.
func (l *Lease) keep(renewed time.Time) {
	for wait := time.Until(renewed.Add(l.ttl / 3)); ; {
		select {
		case <-time.After(wait):
		case <-l.lost:
			return
		case <-l.closed.Done():
			return
		}
		sent := time.Now()
		last := lastMoment(renewed, l.ttl)
		err := l.renew(last)
		switch {
		case l.closed.Err() != nil:
			return
		case err == nil:
			renewed = sent
			wait = time.Until(renewed.Add(l.ttl / 3))
		case errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) || !time.Now().Before(last):
			l.lose()
			return
		default:
			wait = min(renewAgain, time.Until(last))
		}
	}
}

// renew sends one renewal, to the next member if one knows no leader.
func (l *Lease) renew(last time.Time) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(l.closed), min(l.ttl/4, time.Until(last)))
	defer cancel()
	for {
		_, err := l.client.KeepAliveOnce(ctx, l.id)
		refused := leaderless(err) || errors.Is(err, io.EOF) // EOF is a stream that the member has ended before it got the request
		if !refused || !leaderPause(ctx) {
			return err
		}
	}
}

// Release gives the lease up, so that others need not wait for its end. The work must have ended.
func (l *Lease) Release() {
	select {
	case <-l.lost: // it ends by itself, or has ended
		return
	default:
	}
	l.lose()
	if l.closed.Err() != nil || l.health.isSilent() {
		return
	}
	ctx, cancel := context.WithTimeout(l.closed, l.cfg.Timeout)
	defer cancel()
	if _, err := l.client.Revoke(ctx, l.id); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		l.cfg.Logger.Warn("a lease in etcd ends by itself: it could not be released", "name", l.Name, "error", explain(l.closed, err))
	}
}

// add records a lease, unless the store is about to close: then nobody would release it.
func (h *leases) add(l *Lease) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return false
	}
	h.held[l.Name] = l
	return true
}

// take removes leases that match, and returns them.
func (h *leases) take(match func(*Lease) bool) (out []*Lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, l := range h.held {
		if match(l) {
			delete(h.held, name)
			out = append(out, l)
		}
	}
	return out
}

// lose ends the work of a lease with which etcd has refused a transaction.
func (h *leases) lose(is store.Lease) {
	for _, l := range h.take(func(l *Lease) bool { return l.Lease == is }) {
		l.lose()
	}
}

// closing reports whether the store is about to close.
func (h *leases) closing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

func (h *leases) releaseAll() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	for _, l := range h.take(func(*Lease) bool { return true }) {
		l.Release()
	}
}

// Holders returns which server holds each lease: the name of the lease, and the server's ID.
func (h *leases) Holders(ctx context.Context) (map[string]string, error) {
	all := h.keys.lease("")
	answer, err := h.below(ctx, all, maxServers)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, kv := range answer.Kvs {
		out[string(kv.Key[len(all):])] = string(kv.Value)
	}
	return out, nil
}

// revokeLeasesOf ends all leases of a server that is known to have ended, so that others need not wait for their end. If it is still
// there, its next write with a lease is refused.
func (h *leases) revokeLeasesOf(ctx context.Context, server string) error {
	answer, err := h.below(ctx, h.keys.lease(""), maxServers)
	if err != nil || server == "" {
		return err
	}
	for _, kv := range answer.Kvs {
		if string(kv.Value) != server || kv.Lease == 0 {
			continue
		}
		if err := h.revoke(ctx, clientv3.LeaseID(kv.Lease)); err != nil {
			return err
		}
	}
	return nil
}

// revoke ends a lease. One that has ended is no error.
func (h *leases) revoke(ctx context.Context, id clientv3.LeaseID) error {
	bounded, cancel, err := h.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	_, err = h.client.Revoke(bounded, id)
	if errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return h.failedWrite(ctx, err)
}
