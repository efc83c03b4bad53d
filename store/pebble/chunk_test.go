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
			var txns []int // how many entries each has
			for _, entries := range []int{first, 1, first, 1, 1} {
				for ; entries > store.MaxOps; entries -= store.MaxOps {
					txns = append(txns, store.MaxOps)
				}
				txns = append(txns, entries)
			}
			for _, n := range txns {
				var txn store.Txn
				for i := range n {
					txn.Do = append(txn.Do, store.Op{Key: fmt.Sprintf("k/%d", i), Value: []byte("v")})
				}
				if _, err := s.Commit(t.Context(), txn); err != nil {
					t.Fatal(err)
				}
			}
			seen := 0
			for c, err := range s.Watch(t.Context(), 0) {
				if err != nil {
					t.Fatal(err)
				}
				if c.Revision != int64(seen+1) || len(c.Events) != txns[seen] {
					t.Fatalf("revision %d with %d events comes instead of %d with %d", c.Revision, len(c.Events), seen+1, txns[seen])
				}
				if seen++; seen == len(txns) {
					break
				}
			}
		})
	}
}
