package etcd

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	announceFor = 10 * time.Second // the life of an announcement that is not renewed
	maxServers  = 1000             // announcements that are read
)

// Announced is what the servers of this prefix say about themselves.
type Announced struct {
	// Servers has the description of each server that is running and reaches etcd.
	Servers [][]byte
	// Holder is the description that the holder of the lock gave to Lock, or nil.
	Holder []byte
}

// Announce keeps a description of this server in etcd until the store closes. id tells it from other servers. When the server
// does not reach etcd any more, the description ends with its lease.
func (s *Store) Announce(id string, value []byte) {
	s.running.Go(func() {
		var lease clientv3.LeaseID
		for wait := time.Duration(0); s.pause(s.closed, wait) == nil; wait = announceFor / 3 {
			next, err := s.announce(lease, id, value)
			if err != nil && s.closed.Err() == nil {
				s.cfg.Logger.Debug("this server is not announced in etcd", "error", err)
			}
			lease = next
			s.announced.Store(int64(lease))
		}
	})
}

// announce renews the lease of the description, and writes the description if there is no lease. It returns the lease of the
// description, or 0 if it could not be written.
func (c *connection) announce(lease clientv3.LeaseID, id string, value []byte) (clientv3.LeaseID, error) {
	ctx, cancel := context.WithTimeout(c.closed, announceFor/4)
	defer cancel()
	if lease != 0 {
		_, err := c.client.KeepAliveOnce(ctx, lease)
		if errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
			lease = 0
		}
		if err == nil || lease != 0 {
			return lease, err
		}
	}
	granted, err := c.client.Grant(ctx, int64(announceFor/time.Second))
	if err != nil {
		return 0, err
	}
	if _, err := c.client.Put(ctx, c.keys.server(id), string(value), clientv3.WithLease(granted.ID)); err != nil {
		return 0, err // a lease that is kept would look like a description; this one ends by itself
	}
	return granted.ID, nil
}

// withdraw ends the description, so that others do not wait for the end of its lease.
func (s *Store) withdraw() {
	lease := clientv3.LeaseID(s.announced.Load())
	if lease == 0 || s.closed.Err() != nil || s.health.err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.closed, announceFor/4)
	defer cancel()
	_, _ = s.client.Revoke(ctx, lease) // otherwise it ends with its lease
}

// Announced reads the descriptions of all servers.
func (s *Store) Announced(ctx context.Context) (Announced, error) {
	bounded, cancel, err := s.begin(ctx)
	if err != nil {
		return Announced{}, err
	}
	defer cancel()
	all := s.keys.server("")
	answer, err := s.client.Txn(bounded).Then(
		clientv3.OpGet(all, clientv3.WithRange(end(all)), clientv3.WithLimit(maxServers)), clientv3.OpGet(s.keys.lock())).Commit()
	if err != nil {
		return Announced{}, s.failed(ctx, err)
	}
	var out Announced
	for _, kv := range answer.Responses[0].GetResponseRange().Kvs {
		out.Servers = append(out.Servers, kv.Value)
	}
	if kv := firstKV(answer.Responses[1].GetResponseRange().Kvs); kv != nil {
		out.Holder = kv.Value
	}
	return out, nil
}

// Depose takes the lock from a holder that is known to have ended, so that others need not wait for the end of its lease. It
// does nothing if somebody else holds the lock. If the holder is still there, its next write is refused, and it fails with
// ErrLockLost.
func (s *Store) Depose(ctx context.Context, holder []byte) error {
	bounded, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	held, err := s.client.Get(bounded, s.keys.lock())
	if err != nil {
		return s.failed(ctx, err)
	}
	kv := firstKV(held.Kvs)
	if kv == nil || kv.Lease == 0 || !bytes.Equal(kv.Value, holder) || strings.TrimSpace(string(holder)) == "" {
		return nil
	}
	_, err = s.client.Revoke(bounded, clientv3.LeaseID(kv.Lease))
	if errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return s.failedWrite(ctx, err)
}
