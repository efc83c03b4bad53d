package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/store"
)

// holding is the lock while this store has it. The create revision of the key tells this holder from every other one.
type holding struct {
	lease   clientv3.LeaseID
	created int64
}

const (
	lockRetry  = time.Second            // after an error while the lock is awaited
	renewAgain = 100 * time.Millisecond // after an error of a renewal
)

// Lock waits until this store is the only one below its prefix that may write, and returns. self describes this server to
// the others. While another server holds the lock, waiting is called with that server's description, or with an error of
// etcd; it may be called again with the same values.
//
// From then on every Commit has the lock as a condition. If the lease is not renewed in time, the store fails permanently
// with ErrLockLost: see Done. Close releases the lock.
func (s *Store) Lock(ctx context.Context, self []byte, waiting func(holder []byte, err error)) error {
	for {
		holder, err := s.tryLock(ctx, self)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case s.closed.Err() != nil:
			return store.ErrClosed
		case err != nil:
			waiting(nil, err)
			err = s.pause(ctx, lockRetry)
		case holder == nil:
			return nil
		default:
			waiting(holder.Value, nil)
			err = s.awaitRelease(ctx, holder.ModRevision)
		}
		if err != nil {
			return err
		}
	}
}

// tryLock takes the lock if it is free. Otherwise it returns the holder's key.
func (s *Store) tryLock(ctx context.Context, self []byte) (*mvccpb.KeyValue, error) {
	bounded, cancel, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if held, err := s.client.Get(bounded, s.keys.lock()); err != nil || len(held.Kvs) > 0 {
		return firstKV(held), s.failed(ctx, err)
	}
	granted := time.Now()
	lease, err := s.client.Grant(bounded, int64(s.cfg.Lease/time.Second))
	if err != nil {
		return nil, s.failedWrite(ctx, err)
	}
	key := s.keys.lock()
	answer, err := s.client.Txn(bounded).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, string(self), clientv3.WithLease(lease.ID))).Else(clientv3.OpGet(key)).Commit()
	if err != nil { // if the key was written nevertheless, it ends with the lease
		return nil, s.failedWrite(ctx, err)
	}
	if !answer.Succeeded {
		_, err := s.client.Revoke(bounded, lease.ID)
		return firstKV((*clientv3.GetResponse)(answer.Responses[0].GetResponseRange())), s.failed(ctx, err)
	}
	s.held.Store(&holding{lease: lease.ID, created: answer.Header.Revision})
	s.running.Go(func() { s.keepLock(lease.ID, granted) }) //nolint:contextcheck // it lives as long as the store
	return nil, nil
}

// keepLock renews the lease until the store closes. If that fails for as long as the lease lives, the store ends. The time
// counts from before a request was sent, so this store knows that the lease is over before etcd gives the lock away.
//
// Each renewal is a request of its own with a short time-out, so that one member that hangs does not cost the lock.
func (s *Store) keepLock(lease clientv3.LeaseID, renewed time.Time) {
	tick := time.NewTicker(s.cfg.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.closed.Done():
			return
		}
		for {
			sent := time.Now()
			err := s.renew(lease)
			if s.closed.Err() != nil {
				return
			}
			if err == nil {
				renewed = sent
				break
			}
			if errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) || time.Since(renewed) > s.cfg.Lease {
				s.end(ErrLockLost)
				return
			}
			if s.pause(s.closed, renewAgain) != nil {
				return
			}
		}
	}
}

func (s *Store) renew(lease clientv3.LeaseID) error {
	ctx, cancel := context.WithTimeout(s.closed, s.cfg.Lease/4)
	defer cancel()
	_, err := s.client.KeepAliveOnce(ctx, lease)
	return err
}

// awaitRelease returns when the lock may be free. It looks again after the time of a lease in any case.
func (s *Store) awaitRelease(ctx context.Context, seen int64) error {
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Lease)
	defer cancel()
	defer context.AfterFunc(s.closed, cancel)() //nolint:contextcheck // it also ends with the store
	for m := range s.client.Watch(clientv3.WithRequireLeader(bounded), s.keys.lock(), clientv3.WithRev(seen+1)) {
		if m.Err() != nil {
			return s.pause(ctx, lockRetry)
		}
		if len(m.Events) > 0 {
			break
		}
	}
	return ctx.Err()
}

// unlock releases the lock if this store holds it, so that others need not wait for the end of the lease.
func (s *Store) unlock() error {
	held := s.held.Load()
	if held == nil || s.closed.Err() != nil || errors.Is(s.Err(), ErrLockLost) {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.closed, s.cfg.Timeout)
	defer cancel()
	_, err := s.client.Revoke(ctx, held.lease)
	if err == nil || errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		return nil
	}
	s.cfg.Logger.Warn("the lock in etcd ends with its lease: it could not be released", "error", explain(s.closed, err))
	return nil
}

func firstKV(answer *clientv3.GetResponse) *mvccpb.KeyValue {
	if answer == nil || len(answer.Kvs) == 0 {
		return nil
	}
	return answer.Kvs[0]
}
