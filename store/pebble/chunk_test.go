package pebble

import (
	"fmt"
	"testing"

	"github.com/caravanserai/cara/store"
)

// A watch that reads the log in chunks loses no transaction at a chunk's end, whether the chunk is just full, just not
// full, or over.
func TestWatchChunkEnds(t *testing.T) {
	for _, first := range []int{chunkEntries - 1, chunkEntries, chunkEntries + 1} {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			s := openTest(t, Config{})
			for _, n := range []int{first, 1, first, 1, 1} {
				var txn store.Txn
				for i := range n {
					txn.Do = append(txn.Do, store.Op{Key: fmt.Sprintf("k/%d", i), Value: []byte("v")})
				}
				if _, err := s.Commit(t.Context(), txn); err != nil {
					t.Fatal(err)
				}
			}
			next := int64(1)
			for c, err := range s.Watch(t.Context(), "", 0) {
				if err != nil {
					t.Fatal(err)
				}
				if c.Revision != next {
					t.Fatalf("revision %d comes instead of %d", c.Revision, next)
				}
				if next++; next > 5 {
					break
				}
			}
		})
	}
}
