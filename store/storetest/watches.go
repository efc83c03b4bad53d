package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/store"
)

func change(revision int64, events ...store.Event) store.Change {
	return store.Change{Revision: revision, Events: events}
}

func deleted(key string, created, at int64) store.Event {
	return store.Event{Delete: true, KV: store.KV{Key: key, Created: created, Modified: at}}
}

func story(t *testing.T, s store.Store) []store.Change {
	t.Helper()
	commit(t, s, 1, put("p/a", "1"))
	commit(t, s, 2, put("p/b", "1"), put("q/x", "1"))
	commit(t, s, 3, del("p/a"))
	commit(t, s, 4, put("p/a", "2"), del("p/b"), del("p/none"))
	return []store.Change{
		change(1, store.Event{KV: kv("p/a", "1", 1, 1)}),
		change(2, store.Event{KV: kv("p/b", "1", 2, 2)}, store.Event{KV: kv("q/x", "1", 2, 2)}),
		change(3, deleted("p/a", 1, 3)),
		change(4, store.Event{KV: kv("p/a", "2", 4, 4)}, deleted("p/b", 2, 4)),
	}
}

func testWatchStart(t *testing.T, s store.Store) {
	expectWatch(t, s, 0, story(t, s)...)
}

func testWatchMiddle(t *testing.T, s store.Store) {
	want := story(t, s)
	for after := range int64(len(want)) {
		expectWatch(t, s, after, want[after:]...)
	}
	expectWatchError(t, s, int64(len(want)+1), store.ErrCompacted) // a revision that this store never had
}

func testWatchStops(t *testing.T, s store.Store) {
	story(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	n := 0
	for c, err := range s.Watch(ctx, 0) {
		n++
		if last = err; err != nil {
			continue
		}
		if c.Revision == 4 {
			cancel()
		}
	}
	if n != 5 || !errors.Is(last, context.Canceled) {
		t.Errorf("a cancelled watch ended after %d values with %v, want 4 changes and then context.Canceled", n, last)
	}
}

// testWatchLive runs writers and watchers concurrently. Every watcher must see every transaction exactly once, in order.
func testWatchLive(t *testing.T, s store.Store) {
	const writers, each = 8, 60
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				ops := []store.Op{put(numbered("live/"+strconv.Itoa(w)+"/", i), "v"), put("other/"+strconv.Itoa(w), "v")}
				if _, err := s.Commit(t.Context(), store.Txn{Do: ops}); err != nil {
					t.Errorf("commit: %v", err)
					return
				}
			}
		})
	}
	stories := make([][]store.Change, 6)
	for n := range stories {
		wg.Go(func() {
			seen := 0
			all, err := watchUntil(t.Context(), s, 0, func(store.Change) bool { seen++; return seen == writers*each })
			if err != nil {
				t.Errorf("watch from the start: %v", err)
				return
			}
			from := rand.IntN(len(all) - 1) // resume from a random change
			again, err := watchUntil(t.Context(), s, all[from].Revision, at(all[len(all)-1].Revision))
			if err != nil {
				t.Errorf("watch after %d: %v", all[from].Revision, err)
			}
			if diff := cmp.Diff(all[from+1:], again); diff != "" {
				t.Errorf("watch after %d (-the whole watch +this one):\n%s", all[from].Revision, diff)
			}
			stories[n] = all
		})
	}
	wg.Wait()
	last, next := int64(0), map[string]int{}
	for _, c := range stories[0] {
		if c.Revision <= last || len(c.Events) != 2 {
			t.Fatalf("revision %d with %d events after revision %d, want a newer one with 2", c.Revision, len(c.Events), last)
		}
		writer := strings.TrimPrefix(c.Events[1].KV.Key, "other/")
		if want := numbered("live/"+writer+"/", next[writer]); c.Events[0].KV.Key != want {
			t.Fatalf("revision %d has %s, want %s", c.Revision, c.Events[0].KV.Key, want)
		}
		last = c.Revision
		next[writer]++
	}
	for _, other := range stories[1:] {
		if diff := cmp.Diff(stories[0], other); diff != "" {
			t.Fatalf("two watchers (-one +other):\n%s", diff)
		}
	}
}

// testIncreasing commits from many goroutines: no two transactions share a revision, and each revision is above all that
// were seen before.
func testIncreasing(t *testing.T, s store.Store) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := map[int64]bool{}
	for w := range 8 {
		wg.Go(func() {
			for i := range 25 {
				before, err := s.List(t.Context(), "none", store.ListOptions{})
				if err != nil {
					t.Errorf("list: %v", err)
					return
				}
				rev, err := s.Commit(t.Context(), store.Txn{Do: []store.Op{put(numbered(strconv.Itoa(w)+"/", i), "v")}})
				mu.Lock()
				if err != nil || rev <= before.Revision || taken[rev] {
					t.Errorf("commit = revision %d, %v; the store was at %d, and the revision was taken: %t", rev, err, before.Revision, taken[rev])
				}
				taken[rev] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// testListWatch follows a listing with a watch and must end in the same state as a later listing.
func testListWatch(t *testing.T, s store.Store) {
	const rounds = 400
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range rounds {
			op := put(numbered("p/", rng.IntN(20)), strconv.Itoa(rng.Int()))
			if rng.IntN(3) == 0 {
				op = del(op.Key)
			}
			if _, err := s.Commit(t.Context(), store.Txn{Do: []store.Op{op, put("round", strconv.Itoa(i))}}); err != nil {
				t.Errorf("commit: %v", err)
				return
			}
		}
	})
	page := list(t, s, "", store.ListOptions{})
	state := byKey(page)
	over := func() bool { return string(state["round"].Value) == strconv.Itoa(rounds-1) }
	if !over() {
		if _, err := watchUntil(t.Context(), s, page.Revision, func(c store.Change) bool { replay(state, c); return over() }); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(byKey(list(t, s, "", store.ListOptions{})), state); diff != "" {
		t.Errorf("list at %d and watch (-list at the end +ours):\n%s", page.Revision, diff)
	}
}

func byKey(page store.Page) map[string]store.KV {
	out := map[string]store.KV{}
	for _, kv := range page.KVs {
		out[kv.Key] = kv
	}
	return out
}

func replay(state map[string]store.KV, c store.Change) {
	for _, e := range c.Events {
		if e.Delete {
			delete(state, e.KV.Key)
		} else {
			state[e.KV.Key] = e.KV
		}
	}
}

// testCounter increments one key from many goroutines by compare-and-swap: no increment may be lost.
func testCounter(t *testing.T, s store.Store) {
	const workers, each = 8, 25
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if err := increment(t.Context(), s); err != nil {
					t.Errorf("increment: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, err := s.Get(t.Context(), "counter"); err != nil || string(got.Value) != strconv.Itoa(workers*each) {
		t.Errorf("the counter is at %s, %v; want %d", got.Value, err, workers*each)
	}
}

func increment(ctx context.Context, s store.Store) error {
	for {
		have, err := s.Get(ctx, "counter")
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		n := 0
		if err == nil {
			if n, err = strconv.Atoi(string(have.Value)); err != nil {
				return err
			}
		}
		_, err = s.Commit(ctx, store.Txn{
			If: []store.Condition{{Key: "counter", Modified: have.Modified}},
			Do: []store.Op{put("counter", strconv.Itoa(n+1))},
		})
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

func testCompact(t *testing.T, s store.Store) {
	want := story(t, s)
	if err := s.Compact(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	expectWatchError(t, s, 0, store.ErrCompacted)
	expectWatchError(t, s, 1, store.ErrCompacted)
	expectWatch(t, s, 2, want[2:]...)
	expectGet(t, s, kv("q/x", "1", 2, 2))
	if err := s.Compact(t.Context(), 1); err != nil {
		t.Fatalf("compact to what is compacted: %v", err)
	}
	if err := s.Compact(t.Context(), 5); !errors.Is(err, store.ErrInvalid) {
		t.Fatalf("compact beyond the newest revision: %v, want ErrInvalid", err)
	}
	expectWatch(t, s, 3, want[3])
	if err := s.Compact(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	expectWatchError(t, s, 3, store.ErrCompacted)
	commit(t, s, 5, put("p/a", "3"))
	expectWatch(t, s, 4, change(5, store.Event{KV: kv("p/a", "3", 4, 5)}))
}

// testOvertaken compacts the log while a watch is at its first change. The watch may continue with what it had already read,
// or end with ErrCompacted, but must never skip a revision.
func testOvertaken(t *testing.T, s store.Store) {
	commit(t, s, 1, put("a", "1"))
	next := int64(1)
	_, err := watchUntil(t.Context(), s, 0, func(c store.Change) bool {
		if c.Revision != next || len(c.Events) != 1 {
			t.Errorf("the watch went on with %v, want revision %d", c, next)
		}
		if next == 1 {
			commit(t, s, 2, put("a", "2"))
			commit(t, s, 3, put("a", "3"))
			if err := s.Compact(t.Context(), 2); err != nil {
				t.Error(err)
			}
		}
		next++
		return c.Revision == 3
	})
	if err != nil && !errors.Is(err, store.ErrCompacted) {
		t.Errorf("the watch ended with %v, want ErrCompacted", err)
	}
}
