package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/store"
)

// Shared returns what all servers of the cluster share. If there is nothing yet, it stores what create returns. If two
// servers start at the same time, both get the value of the first one. The store does not look into the value; the caller
// encrypts it.
func (s *Store) Shared(ctx context.Context, create func() ([]byte, error)) ([]byte, error) {
	value, err := s.readShared(ctx)
	if err != nil || value != nil {
		return value, err
	}
	fresh, err := create()
	if err != nil {
		return nil, err
	}
	if len(fresh) == 0 || len(fresh) > store.MaxValue {
		return nil, fmt.Errorf("%w: shared value with %d bytes, want 1 to %d", store.ErrInvalid, len(fresh), store.MaxValue)
	}
	bounded, cancel, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	key := s.keys.shared()
	_, err = s.client.Txn(bounded).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(clientv3.OpPut(key, string(fresh))).Commit()
	if err != nil {
		return nil, s.failedWrite(ctx, err)
	}
	return s.readShared(ctx)
}

func (s *Store) readShared(ctx context.Context) ([]byte, error) {
	bounded, cancel, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	answer, err := s.client.Get(bounded, s.keys.shared())
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	if kv := firstKV(answer.Kvs); kv != nil {
		return kv.Value, nil
	}
	return nil, nil
}
