package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/store"
)

// Store is an opened store.
type Store struct {
	*connection
	leases
	first   int64        // no object is older than this revision
	seen    atomic.Int64 // the newest revision that watches tell: of an object, a holder of an agent, or a listing
	members members
}

var _ store.Store = (*Store)(nil)

// Open connects to etcd and checks that the prefix belongs to this version of Cara, or is empty. It fails if etcd does not
// answer in time.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c, err := connect(ctx, cfg.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("open the store in etcd: %w", err)
	}
	s := &Store{connection: c, leases: leases{connection: c, held: map[string]*Lease{}}}
	if err := s.claim(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store in etcd: %w", err), s.disconnect())
	}
	s.running.Go(s.watchHealth)
	s.running.Go(s.watchMembers)
	return s, nil
}

// claim writes the format below an empty prefix, and checks it otherwise.
func (s *Store) claim(ctx context.Context) error {
	bounded, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	format := s.keys.format()
	all := []clientv3.OpOption{clientv3.WithRange(end(s.cfg.Prefix)), clientv3.WithLimit(1), clientv3.WithKeysOnly()}
	answer, err := s.client.Txn(bounded).If(missing(format)).
		Then(clientv3.OpGet(s.cfg.Prefix, all...)).Else(clientv3.OpGet(format), clientv3.OpGet(s.keys.partial())).Commit()
	if err != nil {
		return explain(ctx, err)
	}
	kv := firstKV(answer.Responses[0].GetResponseRange().Kvs)
	switch {
	case answer.Succeeded && kv != nil:
		return fmt.Errorf("the prefix %s has keys that are not Cara's (first key %q): choose another --etcd-prefix", s.cfg.Prefix, kv.Key)
	case answer.Succeeded:
		_, err := s.client.Txn(bounded).If(missing(format)).Then(clientv3.OpPut(format, formatVersion)).Commit()
		if err != nil {
			return explain(ctx, err)
		}
		return s.claim(ctx)
	case string(kv.Value) != formatVersion:
		return fmt.Errorf("the data below %s has format %.20q, and this version reads %s: start a newer version of Cara", s.cfg.Prefix, kv.Value, formatVersion)
	}
	if firstKV(answer.Responses[1].GetResponseRange().Kvs) != nil && !s.cfg.Importing {
		return fmt.Errorf("the data below %s is incomplete, because an import was interrupted: run cara-server migrate or recover again", s.cfg.Prefix)
	}
	s.first = kv.CreateRevision
	return nil
}

// Close releases all leases, so that other servers take over at once, and ends all watches.
func (s *Store) Close() error {
	s.releaseAll()
	return s.disconnect()
}

// saw records a revision that watches tell.
func (s *Store) saw(revision int64) {
	for {
		have := s.seen.Load()
		if revision <= have || s.seen.CompareAndSwap(have, revision) {
			return
		}
	}
}

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
