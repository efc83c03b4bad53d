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
	key := s.keys.shared()
	have, err := s.readKey(ctx, key)
	if err != nil || have != nil {
		return have.GetValue(), err
	}
	fresh, err := create()
	if err != nil {
		return nil, err
	}
	if len(fresh) == 0 || len(fresh) > store.MaxValue {
		return nil, fmt.Errorf("%w: shared value with %d bytes, want 1 to %d", store.ErrInvalid, len(fresh), store.MaxValue)
	}
	if _, err := s.writeIf(ctx, missing(key), clientv3.OpPut(key, string(fresh))); err != nil {
		return nil, err
	}
	have, err = s.readKey(ctx, key)
	return have.GetValue(), err
}
