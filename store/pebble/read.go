package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/caravanserai/cara/store"
)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.KV, error) {
	if err := errors.Join(ctx.Err(), store.ValidateKey(key)); err != nil {
		return store.KV{}, err
	}
	v, err := s.views.acquire()
	if err != nil {
		return store.KV{}, err
	}
	defer s.views.release(v)
	b, closer, err := v.snapshot.Get(objectKey(key))
	if errors.Is(err, pebbledb.ErrNotFound) {
		return store.KV{}, fmt.Errorf("%s: %w", key, store.ErrNotFound)
	}
	if err != nil {
		return store.KV{}, fmt.Errorf("read %s: %w", key, err)
	}
	kv, err := decodeObject(key, b)
	return kv, errors.Join(err, closer.Close())
}

// decodeObject decodes an object. It copies the value.
func decodeObject(key string, b []byte) (store.KV, error) {
	at, value, err := decodeStamp(key, b)
	if err != nil {
		return store.KV{}, err
	}
	copied := append(make([]byte, 0, len(value)), value...)
	return store.KV{Key: key, Value: copied, Created: at.created, Modified: at.modified}, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string, o store.ListOptions) (store.Page, error) {
	if err := errors.Join(ctx.Err(), store.ValidatePrefix(prefix), store.ValidatePrefix(o.After)); err != nil {
		return store.Page{}, err
	}
	if o.Limit < 0 {
		return store.Page{}, fmt.Errorf("%w: negative limit %d", store.ErrInvalid, o.Limit)
	}
	v, err := s.views.acquire()
	if err != nil {
		return store.Page{}, err
	}
	defer s.views.release(v)
	page, err := list(ctx, v, prefix, o)
	if err != nil {
		return store.Page{}, fmt.Errorf("list %q: %w", prefix, err)
	}
	return page, nil
}

func list(ctx context.Context, v *view, prefix string, o store.ListOptions) (store.Page, error) {
	page := store.Page{Revision: v.revision}
	lower := objectKey(prefix)
	upper := after(lower)
	if o.After != "" {
		if from := append(objectKey(o.After), 0); bytes.Compare(from, lower) > 0 {
			lower = from
		}
	}
	if bytes.Compare(lower, upper) >= 0 {
		return page, nil
	}
	it, err := v.snapshot.NewIterWithContext(ctx, &pebbledb.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return store.Page{}, err
	}
	for it.First(); it.Valid(); it.Next() {
		if o.Limit > 0 && len(page.KVs) == o.Limit {
			page.More = true
			break
		}
		kv, err := current(ctx, it)
		if err != nil {
			return store.Page{}, errors.Join(err, it.Close())
		}
		page.KVs = append(page.KVs, kv)
	}
	return page, it.Close()
}

func current(ctx context.Context, it *pebbledb.Iterator) (store.KV, error) {
	if err := ctx.Err(); err != nil {
		return store.KV{}, err
	}
	b, err := it.ValueAndErr()
	if err != nil {
		return store.KV{}, err
	}
	return decodeObject(string(it.Key()[1:]), b)
}
