package etcd

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/store"
)

const (
	lockRetry  = time.Second            // after an error while the lock is awaited
	renewAgain = 100 * time.Millisecond // after an error of a renewal
)

// lock is the right to write below a prefix. One store at a time holds it.
type lock struct {
	*connection
	held atomic.Pointer[holding] // nil while another server may write, or if no lock is used
}

// holding is the lock while this store has it. The create revision of the key tells this holder from every other one.
type holding struct {
	lease   clientv3.LeaseID
	key     string
	created int64
}

// condition holds in etcd while this store still has the lock.
func (h *holding) condition() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(h.key), "=", h.created)
}

// Lock waits until this store is the only one below its prefix that may write, and returns. self describes this server to
// the others. While another server holds the lock, waiting is called with that server's description, or with an error of
// etcd; it may be called again with the same values.
//
// From then on every Commit has the lock as a condition. If the lease is not renewed in time, the store fails permanently
// with ErrLockLost: see Done. Close releases the lock.
func (s *Store) Lock(ctx context.Context, self []byte, waiting func(holder []byte, err error)) error {
	return s.lock.await(ctx, self, waiting)
}

func (l *lock) await(ctx context.Context, self []byte, waiting func(holder []byte, err error)) error {
	for {
		holder, err := l.try(ctx, self)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case l.closed.Err() != nil:
			return store.ErrClosed
		case err != nil:
			waiting(nil, err)
			err = l.pause(ctx, lockRetry)
		case holder == nil:
			return nil
		default:
			waiting(holder.Value, nil)
			err = l.awaitRelease(ctx, holder.ModRevision)
		}
		if err != nil {
			return err
		}
	}
}

// try takes the lock if it is free. Otherwise it returns the holder's key.
func (l *lock) try(ctx context.Context, self []byte) (*mvccpb.KeyValue, error) {
	bounded, cancel, err := l.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	key := l.keys.lock()
	held, err := l.client.Get(bounded, key)
	if err != nil {
		return nil, l.failed(ctx, err)
	}
	if kv := firstKV(held.Kvs); kv != nil {
		return kv, nil
	}
	granted := time.Now()
	lease, err := l.client.Grant(bounded, int64(l.cfg.Lease/time.Second))
	if err != nil {
		return nil, l.failedWrite(ctx, err)
	}
	answer, err := l.client.Txn(bounded).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, string(self), clientv3.WithLease(lease.ID))).Else(clientv3.OpGet(key)).Commit()
	if err != nil { // if the key was written nevertheless, it ends with the lease
		return nil, l.failedWrite(ctx, err)
	}
	if !answer.Succeeded {
		_, err := l.client.Revoke(bounded, lease.ID)
		return firstKV(answer.Responses[0].GetResponseRange().Kvs), l.failed(ctx, err)
	}
	l.held.Store(&holding{lease: lease.ID, key: key, created: answer.Header.Revision})
	l.running.Go(func() { l.keep(lease.ID, granted) }) //nolint:contextcheck // it lives as long as the store
	return nil, nil
}

// keep renews the lease until the store closes. If that fails for as long as the lease lives, the store ends. The time
// counts from before a request was sent, so this store knows that the lease is over before etcd gives the lock away.
//
// Each renewal is a request of its own with a short time-out, so that one member that hangs does not cost the lock.
func (l *lock) keep(lease clientv3.LeaseID, renewed time.Time) {
	wait := time.Until(renewed.Add(l.cfg.Lease / 3))
	for l.pause(l.closed, wait) == nil {
		sent := time.Now()
		err := l.renew(lease)
		switch {
		case l.closed.Err() != nil:
			return
		case err == nil:
			renewed = sent
			wait = time.Until(renewed.Add(l.cfg.Lease / 3))
		case errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) || time.Since(renewed) > l.cfg.Lease:
			l.end(ErrLockLost)
			return
		default:
			wait = renewAgain
		}
	}
}

func (l *lock) renew(lease clientv3.LeaseID) error {
	ctx, cancel := context.WithTimeout(l.closed, l.cfg.Lease/4)
	defer cancel()
	_, err := l.client.KeepAliveOnce(ctx, lease)
	return err
}

// awaitRelease returns when the lock may be free. It looks again after the time of a lease in any case.
func (l *lock) awaitRelease(ctx context.Context, seen int64) error {
	bounded, cancel := context.WithTimeout(ctx, l.cfg.Lease)
	defer cancel()
	defer context.AfterFunc(l.closed, cancel)() //nolint:contextcheck // it also ends with the store
	for m := range l.client.Watch(clientv3.WithRequireLeader(bounded), l.keys.lock(), clientv3.WithRev(seen+1)) {
		if m.Err() != nil {
			return l.pause(ctx, lockRetry)
		}
		if len(m.Events) > 0 {
			break
		}
	}
	return ctx.Err()
}

// release gives the lock up if this store holds it, so that others need not wait for the end of the lease.
func (l *lock) release() {
	held := l.held.Load()
	if held == nil || l.closed.Err() != nil || errors.Is(l.Err(), ErrLockLost) {
		return
	}
	ctx, cancel := context.WithTimeout(l.closed, l.cfg.Timeout)
	defer cancel()
	if _, err := l.client.Revoke(ctx, held.lease); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		l.cfg.Logger.Warn("the lock in etcd ends with its lease: it could not be released", "error", explain(l.closed, err))
	}
}
