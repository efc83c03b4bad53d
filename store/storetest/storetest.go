// Package storetest is the contract of package store as a test suite, and as benchmarks for every backend. A backend that
// passes the suite can be used by the apiserver. Only tests use this package; it knows the interface and no backend.
package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/store"
)

// patience is how long a test waits for an expected event before it fails.
const patience = 30 * time.Second

// Run runs the suite. open returns an empty store each time, which t.Cleanup closes. Tests with one goroutine see ranks
// instead of revisions; the others allow for gaps.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, group := range []struct {
		name string
		test func(t *testing.T, s store.Store)
	}{
		{"get", testGet},
		{"put keeps created, recreate resets it", testStamps},
		{"bytes in, bytes out", testBytes},
		{"transaction is whole", testAtomic},
		{"no change takes no revision", testNoChange},
		{"conditions", testConditions},
		{"list", testList},
		{"list pages", testPages},
		{"bounds", testBounds},
		{"largest transaction", testLarge},
		{"ended context", testContext},
		{"watch from the start", testWatchStart},
		{"watch from the middle", testWatchMiddle},
		{"watch stops", testWatchStops},
		{"compaction", testCompact},
		{"watch is overtaken by compaction", testOvertaken},
	} {
		t.Run(group.name, func(t *testing.T) {
			s := open(t)
			group.test(t, &ranked{Store: s, base: revision(t, s)})
		})
	}
	for name, test := range map[string]func(t *testing.T, s store.Store){
		"list is at one revision": testListRevision,
		"counter":                 testCounter,
		"watch while writers run": testWatchLive,
		"list then watch":         testListWatch,
		"revisions only increase": testIncreasing,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func put(key, value string) store.Op { return store.Op{Key: key, Value: []byte(value)} }

func del(key string) store.Op { return store.Op{Key: key, Delete: true} }

func kv(key, value string, created, modified int64) store.KV {
	return store.KV{Key: key, Value: []byte(value), Created: created, Modified: modified}
}

// commit commits ops and expects revision want.
func commit(t *testing.T, s store.Store, want int64, ops ...store.Op) {
	t.Helper()
	got, err := s.Commit(t.Context(), store.Txn{Do: ops})
	if err != nil {
		t.Fatalf("commit %v: %v", ops, err)
	}
	if got != want {
		t.Fatalf("commit %v took revision %d, want %d", ops, got, want)
	}
}

func expectGet(t *testing.T, s store.Store, want store.KV) {
	t.Helper()
	got, err := s.Get(t.Context(), want.Key)
	if err != nil {
		t.Fatalf("get %s: %v", want.Key, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("get %s (-want +got):\n%s", want.Key, diff)
	}
}

func expectGone(t *testing.T, s store.Store, key string) {
	t.Helper()
	if got, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("get %s = %v, %v; want ErrNotFound", key, got, err)
	}
}

// list returns a page of objects.
func list(t *testing.T, s store.Store, prefix string, o store.ListOptions) store.Page {
	t.Helper()
	page, err := s.List(t.Context(), prefix, o)
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	return page
}

// revision returns the newest revision, from an empty listing.
func revision(t *testing.T, s store.Store) int64 {
	t.Helper()
	return list(t, s, "no such prefix/", store.ListOptions{}).Revision
}

// watchUntil returns the changes until done returns true for one. If that change says that there is more, watchUntil waits for it.
// More of the returned changes is false, because it depends on when they were read.
func watchUntil(ctx context.Context, s store.Store, after int64, done func(store.Change) bool) ([]store.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var got []store.Change
	last := false
	for c, err := range s.Watch(ctx, after) {
		switch {
		case err != nil:
			return got, err
		case last:
			return got, nil
		}
		more := c.More
		c.More = false
		got = append(got, c)
		if last = done(c); last && !more {
			return got, nil
		}
	}
	return got, errors.New("the watch ended without an error")
}

func at(revision int64) func(store.Change) bool {
	return func(c store.Change) bool { return c.Revision >= revision }
}

func expectWatch(t *testing.T, s store.Store, after int64, want ...store.Change) {
	t.Helper()
	got, err := watchUntil(t.Context(), s, after, at(want[len(want)-1].Revision))
	if err != nil {
		t.Fatalf("watch after %d: %v", after, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("watch after %d (-want +got):\n%s", after, diff)
	}
}

func expectWatchError(t *testing.T, s store.Store, after int64, want error) {
	t.Helper()
	got, err := watchUntil(t.Context(), s, after, func(store.Change) bool { return true })
	if !errors.Is(err, want) {
		t.Fatalf("watch after %d = %v, %v; want error %v", after, got, err, want)
	}
}
