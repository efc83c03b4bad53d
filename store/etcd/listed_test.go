package etcd

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/store"
)

// TestAListingIsReachedEverywhere: etcd counts what no watch tells. The watches of all servers reach the revision of a listing
// nevertheless, once a watch continues from it, and a watch that continues from a change writes nothing.
func TestAListingIsReachedEverywhere(t *testing.T) {
	for name, program := range testetcd.Versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testetcd.Start(t, testetcd.Config{Program: program})
			quiet := openTest(t, c, Config{})
			changed := mustCommit(t, quiet, put("a", 1))
			follow := func(s *Store, after int64) *atomic.Int64 {
				var reached atomic.Int64
				reached.Store(after)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					for change, err := range s.Watch(ctx, after) {
						if ctx.Err() != nil {
							return
						}
						must(t, err)
						if len(change.Events) > 0 && change.Events[0].KV.Key != "b" {
							t.Errorf("a change that nobody made: %v", change)
						}
						reached.Store(change.Revision)
					}
				}()
				t.Cleanup(func() { cancel(); <-done })
				return &reached
			}
			first := follow(quiet, changed)
			operator := admin(t, c, "")
			for range 3 {
				_, err := operator.Put(t.Context(), "/another/program", "x")
				must(t, err)
			}
			started := openTest(t, c, Config{Prefix: quiet.cfg.Prefix})
			page, err := started.List(t.Context(), "", store.ListOptions{})
			must(t, err)
			if page.Revision <= changed {
				t.Fatalf("the listing is at %d, the last change at %d", page.Revision, changed)
			}
			second := follow(started, page.Revision)
			eventually(t, "both are there", func() bool { return first.Load() >= page.Revision && second.Load() >= page.Revision })

			before, err := operator.Get(t.Context(), quiet.keys.listed())
			must(t, err)
			third := follow(started, mustCommit(t, started, put("b", 1)))
			last := mustCommit(t, quiet, put("b", 2))
			eventually(t, "the third one is there", func() bool { return third.Load() >= last })
			after, err := operator.Get(t.Context(), quiet.keys.listed())
			must(t, err)
			if before.Kvs[0].ModRevision != after.Kvs[0].ModRevision {
				t.Error("a watch that continues from a change writes")
			}
		})
	}
}
