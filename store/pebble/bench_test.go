package pebble

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/storetest"
)

// BenchmarkCommit sets synced single writes of 1 KiB beside raw Pebble with the same options: "raw" writes the object
// alone, "raw twice" what a store with a change log cannot avoid, two keys and the value twice.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("raw/%d", writers), func(b *testing.B) {
			db := openRaw(b)
			storetest.Each(b, writers, func(i int64) error { return db.Set(rawKey('o', i), storetest.Kibibyte, pebbledb.Sync) })
		})
		b.Run(fmt.Sprintf("raw twice/%d", writers), func(b *testing.B) {
			db := openRaw(b)
			storetest.Each(b, writers, func(i int64) error {
				batch := db.NewBatch()
				if err := batch.Set(rawKey('o', i), storetest.Kibibyte, nil); err != nil {
					return err
				}
				if err := batch.Set(rawKey('l', i), storetest.Kibibyte, nil); err != nil {
					return err
				}
				if err := batch.Commit(pebbledb.Sync); err != nil {
					return err
				}
				return batch.Close()
			})
		})
		b.Run(fmt.Sprintf("store/%d", writers), func(b *testing.B) {
			storetest.Writes(b, openTest(b, Config{Dir: b.TempDir()}), writers)
		})
		b.Run(fmt.Sprintf("store cas/%d", writers), func(b *testing.B) {
			s := openTest(b, Config{Dir: b.TempDir()})
			storetest.Each(b, writers, func(i int64) error {
				_, err := s.Commit(b.Context(), store.Txn{
					If: []store.Condition{{Key: fmt.Sprintf("projects/%d", i)}},
					Do: []store.Op{{Key: fmt.Sprintf("projects/%d", i), Value: storetest.Kibibyte}, {Key: fmt.Sprintf("events/%d", i), Value: storetest.Kibibyte[:256]}},
				})
				return err
			})
		})
	}
}

// BenchmarkMark measures what the mark adds to each group of commits.
func BenchmarkMark(b *testing.B) {
	dir := b.TempDir()
	m, err := openMark(vfs.Default, dir, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := m.write(int64(b.N)); err != nil {
			b.Fatal(err)
		}
	}
	if err := m.close(); err != nil {
		b.Fatal(err)
	}
}

func openRaw(b *testing.B) *pebbledb.DB {
	b.Helper()
	cfg := Config{Dir: b.TempDir()}.withDefaults()
	db, err := pebbledb.Open(cfg.Dir, cfg.options(nil, newHealth(cfg)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return db
}

func rawKey(space byte, i int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{space}, uint64(i))
}

func BenchmarkRead(b *testing.B) { storetest.Reads(b, openTest(b, Config{Dir: b.TempDir()})) }

// BenchmarkWatch measures from a commit until every watcher has its event.
func BenchmarkWatch(b *testing.B) {
	for _, watchers := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("fan-out/%d", watchers), func(b *testing.B) { storetest.FanOut(b, openTest(b, Config{Dir: b.TempDir()}), watchers) })
	}
	b.Run("catch up", func(b *testing.B) {
		s := openTest(b, Config{Dir: b.TempDir()})
		const revisions = 10_000
		var wg sync.WaitGroup
		for w := range 50 {
			wg.Go(func() {
				for i := range int64(revisions / 50) {
					if _, err := s.Commit(b.Context(), storetest.Write(int64(w)*1000+i)); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		for b.Loop() {
			for c, err := range s.Watch(b.Context(), 0) {
				if err != nil {
					b.Fatal(err)
				}
				if c.Revision == revisions {
					break
				}
			}
		}
		b.ReportMetric(float64(b.N)*revisions/b.Elapsed().Seconds(), "changes/s")
	})
}
