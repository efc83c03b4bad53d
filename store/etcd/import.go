package etcd

import (
	"bytes"
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/store"
)

// Import writes the objects of a listing of another store and compares what is stored with them. The prefix must have no
// objects, except those of an import that was interrupted. The objects get new revisions. The caller has the lease
// LeaseCopy and has opened the store with Config.Importing. Until Import is complete, nobody else can open the prefix.
func (s *Store) Import(ctx context.Context, l *Lease, page store.Page) error {
	if err := s.clearPartial(ctx, l); err != nil {
		return fmt.Errorf("import into etcd: %w", err)
	}
	for kvs := page.KVs; len(kvs) > 0; {
		txn := store.Txn{Lease: l.Lease}
		for size := 0; len(kvs) > 0 && len(txn.Do) < store.MaxOps; kvs = kvs[1:] {
			if size += len(kvs[0].Key) + len(kvs[0].Value); size > store.MaxTxn && len(txn.Do) > 0 {
				break
			}
			txn.Do = append(txn.Do, store.Op{Key: kvs[0].Key, Value: kvs[0].Value})
		}
		if _, err := s.Commit(ctx, txn); err != nil {
			return fmt.Errorf("import into etcd: %w", err)
		}
	}
	written, err := s.List(ctx, "", store.ListOptions{})
	if err == nil {
		err = Equal(page, written)
	}
	if err == nil {
		err = s.setPartial(ctx, l, clientv3.OpDelete(s.keys.partial()))
	}
	if err != nil {
		return fmt.Errorf("import into etcd: %w", err)
	}
	return nil
}

// clearPartial marks the import as incomplete, and removes what an interrupted one has written.
func (s *Store) clearPartial(ctx context.Context, l *Lease) error {
	partial, err := s.readKey(ctx, s.keys.partial())
	if err != nil {
		return err
	}
	page, err := s.List(ctx, "", store.ListOptions{Limit: 1})
	switch {
	case err != nil:
		return err
	case len(page.KVs) > 0 && partial == nil:
		return fmt.Errorf("there are objects below %s (the first is %q): choose another --etcd-prefix", s.cfg.Prefix, page.KVs[0].Key)
	}
	from, to := s.keys.span("", "")
	return s.setPartial(ctx, l, clientv3.OpPut(s.keys.partial(), formatVersion), clientv3.OpDelete(from, clientv3.WithRange(to)))
}

// setPartial does operations while this store has the lease.
func (s *Store) setPartial(ctx context.Context, l *Lease, ops ...clientv3.Op) error {
	answer, err := s.writeIf(ctx, holds(s.keys, l.Lease), ops...)
	if err == nil && !answer.Succeeded {
		return store.ErrLeaseLost
	}
	return err
}

// Equal returns an error that names the first object in which two listings of stores differ. Revisions may differ.
func Equal(a, b store.Page) error {
	for i := range min(len(a.KVs), len(b.KVs)) {
		if a.KVs[i].Key != b.KVs[i].Key || !bytes.Equal(a.KVs[i].Value, b.KVs[i].Value) {
			return fmt.Errorf("the copy differs at %s: copy again", a.KVs[i].Key)
		}
	}
	if len(a.KVs) != len(b.KVs) {
		return fmt.Errorf("the copy has %d objects instead of %d: copy again", len(b.KVs), len(a.KVs))
	}
	return nil
}
