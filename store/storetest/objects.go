package storetest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/store"
)

func testGet(t *testing.T, s store.Store) {
	if got := revision(t, s); got != 0 {
		t.Fatalf("an empty store is at revision %d, want 0", got)
	}
	expectGone(t, s, "projects/web")
	commit(t, s, 1, put("projects/web", "a"))
	expectGet(t, s, kv("projects/web", "a", 1, 1))
	for _, near := range []string{"projects/we", "projects/webb", "projects/", "Projects/web"} {
		expectGone(t, s, near)
	}
}

func testStamps(t *testing.T, s store.Store) {
	commit(t, s, 1, put("a", "1"))
	commit(t, s, 2, put("b", "1"))
	commit(t, s, 3, put("a", "2"))
	expectGet(t, s, kv("a", "2", 1, 3))
	commit(t, s, 4, put("a", "2")) // writing the same bytes is also a change
	expectGet(t, s, kv("a", "2", 1, 4))
	commit(t, s, 5, del("a"))
	expectGone(t, s, "a")
	expectWatch(t, s, 4, change(5, deleted("a", 1, 5)))
	commit(t, s, 6, put("a", "3"))
	expectGet(t, s, kv("a", "3", 6, 6))
}

func testBytes(t *testing.T, s store.Store) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	long := strings.Repeat("k", store.MaxKey)
	odd := "x/\x00\xff\xff/é"
	commit(t, s, 1, put("bytes", string(all)), put(long, "long"), put(odd, "odd"), put("\xff\xff", "top"))
	for _, want := range []store.KV{
		kv("bytes", string(all), 1, 1), kv(long, "long", 1, 1), kv(odd, "odd", 1, 1), kv("\xff\xff", "top", 1, 1),
	} {
		expectGet(t, s, want)
	}
	if page := list(t, s, "\xff", store.ListOptions{}); len(page.KVs) != 1 {
		t.Fatalf("list of the highest prefix = %v; want one object", page)
	}

	commit(t, s, 2, put("empty", ""))
	got, err := s.Get(t.Context(), "empty")
	if err != nil || len(got.Value) != 0 || got.Modified != 2 {
		t.Fatalf("get of an empty value = %v, %v", got, err)
	}

	got, err = s.Get(t.Context(), "bytes")
	if err != nil {
		t.Fatal(err)
	}
	clear(got.Value) // the receiver owns it
	expectGet(t, s, kv("bytes", string(all), 1, 1))
}

func testAtomic(t *testing.T, s store.Store) {
	commit(t, s, 1, put("a", "1"), put("b", "1"))
	commit(t, s, 2, del("a"), put("b", "2"), put("c", "2"))
	expectGone(t, s, "a")
	expectGet(t, s, kv("b", "2", 1, 2))
	expectGet(t, s, kv("c", "2", 2, 2))

	_, err := s.Commit(t.Context(), store.Txn{
		If: []store.Condition{{Key: "c", Modified: 2}, {Key: "b", Modified: 1}},
		Do: []store.Op{put("a", "3"), put("b", "3"), del("c")},
	})
	if !errors.Is(err, store.ErrConflict) {
		t.Fatalf("commit with one condition that does not hold: %v, want ErrConflict", err)
	}
	expectGone(t, s, "a")
	expectGet(t, s, kv("b", "2", 1, 2))
	expectGet(t, s, kv("c", "2", 2, 2))
	if got := revision(t, s); got != 2 {
		t.Fatalf("a refused transaction moved the revision to %d", got)
	}
}

func testNoChange(t *testing.T, s store.Store) {
	commit(t, s, 0, del("nothing"))
	commit(t, s, 1, put("a", "1"))
	commit(t, s, 1, del("nothing"), del("nothing else"))
	commit(t, s, 2, put("b", "1"), del("nothing"))
	expectWatch(
		t, s, 0,
		store.Change{Revision: 1, Events: []store.Event{{KV: kv("a", "1", 1, 1)}}},
		store.Change{Revision: 2, Events: []store.Event{{KV: kv("b", "1", 2, 2)}}},
	)
}

func testConditions(t *testing.T, s store.Store) {
	commit(t, s, 1, put("a", "1"))
	commit(t, s, 2, put("b", "1"))
	commit(t, s, 3, put("gone", "1"))
	commit(t, s, 4, del("gone"))
	for _, test := range []struct {
		name string
		cond []store.Condition
		want *store.ConflictError
	}{
		{"right revision", []store.Condition{{Key: "a", Modified: 1}}, nil},
		{"several that hold", []store.Condition{{Key: "a", Modified: 1}, {Key: "b", Modified: 2}, {Key: "new"}}, nil},
		{"stated twice", []store.Condition{{Key: "a", Modified: 1}, {Key: "a", Modified: 1}}, nil},
		{"deleted does not exist", []store.Condition{{Key: "gone"}}, nil},
		{"older", []store.Condition{{Key: "b", Modified: 1}}, &store.ConflictError{Key: "b", Want: 1, Have: 2}},
		{"newer", []store.Condition{{Key: "a", Modified: 9}}, &store.ConflictError{Key: "a", Want: 9, Have: 1}},
		{"must not exist", []store.Condition{{Key: "a"}}, &store.ConflictError{Key: "a", Have: 1}},
		{"does not exist", []store.Condition{{Key: "new", Modified: 1}}, &store.ConflictError{Key: "new", Want: 1}},
		{"deleted", []store.Condition{{Key: "gone", Modified: 4}}, &store.ConflictError{Key: "gone", Want: 4}},
		{
			"first that fails is named",
			[]store.Condition{{Key: "a", Modified: 1}, {Key: "b", Modified: 7}, {Key: "a"}},
			&store.ConflictError{Key: "b", Want: 7, Have: 2},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := revision(t, s)
			got, err := s.Commit(t.Context(), store.Txn{If: test.cond, Do: []store.Op{put("other", "x")}})
			if test.want == nil {
				if err != nil || got != before+1 {
					t.Fatalf("commit = %d, %v; want revision %d", got, err, before+1)
				}
				return
			}
			var conflict *store.ConflictError
			if !errors.As(err, &conflict) || !errors.Is(err, store.ErrConflict) {
				t.Fatalf("commit: %v, want a ConflictError", err)
			}
			if diff := cmp.Diff(test.want, conflict); diff != "" {
				t.Errorf("conflict (-want +got):\n%s", diff)
			}
		})
	}
}

func testBounds(t *testing.T, s store.Store) {
	long := strings.Repeat("k", store.MaxKey+1)
	many := make([]store.Op, store.MaxOps+1)
	for i := range many {
		many[i] = store.Op{Key: "k", Delete: true}
	}
	big := make([]store.Op, store.MaxTxn/store.MaxValue) // with its keys it is over the limit
	value := bytes.Repeat([]byte("v"), store.MaxValue)
	for i := range big {
		big[i] = store.Op{Key: strings.Repeat("b", i+1), Value: value}
	}
	for name, txn := range map[string]store.Txn{
		"no operations":       {If: []store.Condition{{Key: "a"}}},
		"empty key":           {Do: []store.Op{put("", "x")}},
		"long key":            {Do: []store.Op{put(long, "x")}},
		"long condition":      {If: []store.Condition{{Key: long}}, Do: []store.Op{put("a", "x")}},
		"empty condition":     {If: []store.Condition{{}}, Do: []store.Op{put("a", "x")}},
		"negative condition":  {If: []store.Condition{{Key: "a", Modified: -1}}, Do: []store.Op{put("a", "x")}},
		"key twice":           {Do: []store.Op{put("a", "x"), put("b", "x"), del("a")}},
		"delete with value":   {Do: []store.Op{{Key: "a", Value: []byte("x"), Delete: true}}},
		"large value":         {Do: []store.Op{{Key: "a", Value: make([]byte, store.MaxValue+1)}}},
		"too many operations": {Do: many},
		"too many conditions": {If: make([]store.Condition, store.MaxConditions+1), Do: []store.Op{put("a", "x")}},
		"too many bytes":      {Do: big},
	} {
		if got, err := s.Commit(t.Context(), txn); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: commit = %d, %v; want ErrInvalid", name, got, err)
		}
	}
	for name, err := range map[string]error{
		"get empty key":  second(s.Get(t.Context(), "")),
		"get long key":   second(s.Get(t.Context(), long)),
		"list long":      second(s.List(t.Context(), long, store.ListOptions{})),
		"list after":     second(s.List(t.Context(), "", store.ListOptions{After: long})),
		"list limit":     second(s.List(t.Context(), "", store.ListOptions{Limit: -1})),
		"compact below":  s.Compact(t.Context(), -1),
		"compact beyond": s.Compact(t.Context(), 1),
	} {
		if !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	expectWatchError(t, s, -1, store.ErrInvalid)
	if got := revision(t, s); got != 0 {
		t.Errorf("refused requests moved the revision to %d", got)
	}
	commit(t, s, 1, store.Op{Key: strings.Repeat("k", store.MaxKey), Value: value})
}

func second[T any](_ T, err error) error { return err }

func testContext(t *testing.T, s store.Store) {
	commit(t, s, 1, put("a", "1"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"get":     second(s.Get(ctx, "a")),
		"list":    second(s.List(ctx, "", store.ListOptions{})),
		"commit":  second(s.Commit(ctx, store.Txn{Do: []store.Op{put("a", "2")}})),
		"compact": s.Compact(ctx, 1),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", name, err)
		}
	}
	expectGet(t, s, kv("a", "1", 1, 1))
}

// testLarge commits the largest allowed transaction.
func testLarge(t *testing.T, s store.Store) {
	ops, conditions := make([]store.Op, store.MaxOps), make([]store.Condition, store.MaxConditions)
	for i := range ops {
		key := numbered("large/", i)
		ops[i] = store.Op{Key: key, Value: bytes.Repeat([]byte{byte(i)}, store.MaxTxn/store.MaxOps-len(key))}
		if i < len(conditions) {
			conditions[i] = store.Condition{Key: key}
		}
	}
	if got, err := s.Commit(t.Context(), store.Txn{If: conditions, Do: ops}); err != nil || got != 1 {
		t.Fatalf("commit = %d, %v", got, err)
	}
	if page := list(t, s, "large/", store.ListOptions{}); len(page.KVs) != len(ops) || page.Revision != 1 {
		t.Fatalf("list has %d objects at revision %d; want %d at 1", len(page.KVs), page.Revision, len(ops))
	}
	got, err := watchUntil(t.Context(), s, 0, at(1))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || len(got[0].Events) != len(ops) {
		t.Fatalf("watch tells it in %d changes, want one with %d events", len(got), len(ops))
	}
	for i, e := range got[0].Events {
		if e.KV.Key != ops[i].Key || !bytes.Equal(e.KV.Value, ops[i].Value) {
			t.Fatalf("event %d is %s, want %s in the order of the transaction", i, e.KV.Key, ops[i].Key)
		}
	}
}
