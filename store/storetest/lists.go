package storetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/store"
)

func numbered(prefix string, n int) string { return fmt.Sprintf("%s%06d", prefix, n) }

func keys(page store.Page) []string {
	var out []string
	for _, kv := range page.KVs {
		out = append(out, kv.Key)
	}
	return out
}

func testList(t *testing.T, s store.Store) {
	commit(t, s, 1, put("a/2", ""), put("a/1", ""), put("a", ""), put("b/1", ""), put("a/10", ""), put("a0", ""), put("a/", ""), put("a/\xff", ""))
	commit(t, s, 2, put("a/gone", ""))
	commit(t, s, 3, del("a/gone"))
	for _, test := range []struct {
		name, prefix string
		o            store.ListOptions
		want         []string
		more         bool
	}{
		{"everything, in byte order", "", store.ListOptions{}, []string{"a", "a/", "a/1", "a/10", "a/2", "a/\xff", "a0", "b/1"}, false},
		{"a folder", "a/", store.ListOptions{}, []string{"a/", "a/1", "a/10", "a/2", "a/\xff"}, false},
		{"a prefix is bytes, not a folder", "a/1", store.ListOptions{}, []string{"a/1", "a/10"}, false},
		{"nothing there", "c", store.ListOptions{}, nil, false},
		{"deleted", "a/gone", store.ListOptions{}, nil, false},
		{"first two", "a/", store.ListOptions{Limit: 2}, []string{"a/", "a/1"}, true},
		{"limit met exactly", "a/", store.ListOptions{Limit: 5}, []string{"a/", "a/1", "a/10", "a/2", "a/\xff"}, false},
		{"limit above", "a/", store.ListOptions{Limit: 6}, []string{"a/", "a/1", "a/10", "a/2", "a/\xff"}, false},
		{"after a key", "a/", store.ListOptions{After: "a/1"}, []string{"a/10", "a/2", "a/\xff"}, false},
		{"after a key with limit", "a/", store.ListOptions{After: "a/1", Limit: 1}, []string{"a/10"}, true},
		{"after a key that is not there", "a/", store.ListOptions{After: "a/11"}, []string{"a/2", "a/\xff"}, false},
		{"after the last", "a/", store.ListOptions{After: "a/\xff"}, nil, false},
		{"after, before the prefix", "a/", store.ListOptions{After: "Z"}, []string{"a/", "a/1", "a/10", "a/2", "a/\xff"}, false},
		{"after, behind the prefix", "a/", store.ListOptions{After: "b"}, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			page := list(t, s, test.prefix, test.o)
			if diff := cmp.Diff(test.want, keys(page)); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
			if page.More != test.more || page.Revision != 3 {
				t.Errorf("more %v at revision %d, want %v at 3", page.More, page.Revision, test.more)
			}
		})
	}
}

func testPages(t *testing.T, s store.Store) {
	const n = 25
	var want []string
	for i := range n {
		commit(t, s, int64(i+1), put(numbered("p/", i), "v"))
		want = append(want, numbered("p/", i))
	}
	for limit := 1; limit <= n+1; limit += 4 {
		var got []string
		o := store.ListOptions{Limit: limit}
		for {
			page := list(t, s, "p/", o)
			got = append(got, keys(page)...)
			if !page.More {
				break
			}
			if len(page.KVs) != limit {
				t.Fatalf("a page with more to come has %d objects, want %d", len(page.KVs), limit)
			}
			o.After = page.KVs[limit-1].Key
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", limit, diff)
		}
	}
}

// testListRevision moves one token between keys, so that every revision has exactly one, and lists concurrently.
func testListRevision(t *testing.T, s store.Store) {
	const moves = 300
	if _, err := s.Commit(t.Context(), store.Txn{Do: []store.Op{put(numbered("token/", 0), "")}}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range moves {
			ops := []store.Op{del(numbered("token/", i)), put(numbered("token/", i+1), "")}
			if _, err := s.Commit(t.Context(), store.Txn{Do: ops}); err != nil {
				t.Errorf("move %d: %v", i, err)
				return
			}
		}
	})
	var last store.KV
	for revision := int64(0); last.Key != numbered("token/", moves) && !t.Failed(); {
		page := list(t, s, "token/", store.ListOptions{})
		if page.Revision < revision {
			t.Fatalf("revision went back from %d to %d", revision, page.Revision)
		}
		if len(page.KVs) != 1 || page.KVs[0].Modified > page.Revision || page.KVs[0].Key < last.Key || page.KVs[0].Modified < last.Modified {
			t.Fatalf("list at revision %d has %v; before it had %v", page.Revision, page.KVs, last)
		}
		revision, last = page.Revision, page.KVs[0]
	}
}
