package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/store"
)

const (
	firstPart  = 64      // keys in the first part of a listing
	largePart  = 4096    // keys in the largest one
	partBytes  = 4 << 20 // approximate size of a part
	maxListing = 8       // how often a listing begins again because a compaction overtook it
)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.KV, error) {
	if err := store.ValidateKey(key); err != nil {
		return store.KV{}, err
	}
	found, err := s.readKey(ctx, s.keys.object(key))
	if err != nil {
		return store.KV{}, err
	}
	if found == nil {
		return store.KV{}, store.ErrNotFound
	}
	kv := s.keys.kv(found)
	s.saw(kv.Modified)
	return kv, nil
}

// kv converts an object of etcd. Values are not shared, so the receiver owns them.
func (k keys) kv(kv *mvccpb.KeyValue) store.KV {
	out := store.KV{Key: k.name(kv.Key), Value: kv.Value, Created: kv.CreateRevision, Modified: kv.ModRevision}
	if out.Value == nil {
		out.Value = []byte{}
	}
	return out
}

// firstKV returns the first one of an answer, or nil.
func firstKV(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string, o store.ListOptions) (store.Page, error) {
	if err := errors.Join(store.ValidatePrefix(prefix), store.ValidatePrefix(o.After)); err != nil {
		return store.Page{}, err
	}
	if o.Limit < 0 {
		return store.Page{}, fmt.Errorf("%w: negative limit %d", store.ErrInvalid, o.Limit)
	}
	for range maxListing {
		page, err := s.list(ctx, prefix, o)
		if err == nil {
			return page, nil
		}
		if !errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted) { // the revision of the first part is gone
			return store.Page{}, s.failed(ctx, err)
		}
	}
	return store.Page{}, fmt.Errorf("list %q: etcd's history is compacted faster than the listing can be read: compact it less often", prefix)
}

// list reads parts of about partBytes, all at the revision of the first one.
func (s *Store) list(ctx context.Context, prefix string, o store.ListOptions) (page store.Page, err error) {
	from, to := s.keys.span(prefix, o.After)
	size := 0
	for part := firstPart; ; part = nextPart(len(page.KVs), size) {
		if o.Limit > 0 {
			part = min(part, o.Limit-len(page.KVs))
		}
		answer, err := s.part(ctx, from, to, part, page.Revision)
		if err != nil {
			return store.Page{}, err
		}
		if page.Revision == 0 {
			page.Revision = answer.Header.Revision
		}
		for _, kv := range answer.Kvs {
			page.KVs = append(page.KVs, s.keys.kv(kv))
			s.saw(kv.ModRevision)
			size += len(kv.Key) + len(kv.Value)
		}
		page.More = answer.More
		if !answer.More || len(page.KVs) == o.Limit {
			return page, nil
		}
		from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// part reads up to limit objects at a revision; 0 is the newest one.
func (c *connection) part(ctx context.Context, from, to string, limit int, revision int64) (*clientv3.GetResponse, error) {
	bounded, cancel, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if from >= to { // nothing can be there; etcd tells the revision
		return c.client.Get(bounded, c.keys.format(), clientv3.WithCountOnly())
	}
	return c.client.Get(bounded, from, clientv3.WithRange(to), clientv3.WithLimit(int64(limit)), clientv3.WithRev(revision),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortNone))
}

// nextPart returns how many keys the next part of a listing has, from the mean size of those that were read.
func nextPart(keys, size int) int {
	return min(largePart, max(1, partBytes/max(1, size/max(1, keys))))
}
