package pebble

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/caravanserai/cara/store"
)

var kibibyte = bytes.Repeat([]byte("0123456789abcdef"), 64)

// each runs work b.N times on n goroutines.
func each(b *testing.B, n int, work func(i int64) error) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := work(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
}

// BenchmarkCommit sets synced single writes of 1 KiB beside raw Pebble with the same options: "raw" writes the object
// alone, "raw twice" what a store with a change log cannot avoid, two keys and the value twice.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("raw/%d", writers), func(b *testing.B) {
			db := openRaw(b)
			each(b, writers, func(i int64) error { return db.Set(rawKey('o', i), kibibyte, pebbledb.Sync) })
		})
		b.Run(fmt.Sprintf("raw twice/%d", writers), func(b *testing.B) {
			db := openRaw(b)
			each(b, writers, func(i int64) error {
				batch := db.NewBatch()
				if err := batch.Set(rawKey('o', i), kibibyte, nil); err != nil {
					return err
				}
				if err := batch.Set(rawKey('l', i), kibibyte, nil); err != nil {
					return err
				}
				if err := batch.Commit(pebbledb.Sync); err != nil {
					return err
				}
				return batch.Close()
			})
		})
		b.Run(fmt.Sprintf("store/%d", writers), func(b *testing.B) {
			s := openTest(b, Config{Dir: b.TempDir()})
			each(b, writers, func(i int64) error {
				_, err := s.Commit(b.Context(), store.Txn{Do: []store.Op{{Key: objectName(i), Value: kibibyte}}})
				return err
			})
		})
		b.Run(fmt.Sprintf("store cas/%d", writers), func(b *testing.B) {
			s := openTest(b, Config{Dir: b.TempDir()})
			each(b, writers, func(i int64) error {
				_, err := s.Commit(b.Context(), store.Txn{
					If: []store.Condition{{Key: fmt.Sprintf("projects/%d", i)}},
					Do: []store.Op{{Key: fmt.Sprintf("projects/%d", i), Value: kibibyte}, {Key: fmt.Sprintf("events/%d", i), Value: kibibyte[:256]}},
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

func objectName(i int64) string { return fmt.Sprintf("projects/project-%06d", i%20_000) }

// BenchmarkRead measures one object and a listing of a thousand, 1 KiB each.
func BenchmarkRead(b *testing.B) {
	s := openTest(b, Config{Dir: b.TempDir()})
	fill(b, s, 1000)
	for _, readers := range []int{1, 16} {
		b.Run(fmt.Sprintf("get/%d", readers), func(b *testing.B) {
			each(b, readers, func(i int64) error {
				_, err := s.Get(b.Context(), objectName(i%1000))
				return err
			})
		})
	}
	b.Run("list of 1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			page, err := s.List(b.Context(), "projects/", store.ListOptions{})
			if err != nil || len(page.KVs) != 1000 {
				b.Fatalf("%d objects, %v", len(page.KVs), err)
			}
		}
	})
}

func fill(b *testing.B, s *Store, n int64) {
	b.Helper()
	for i := range n {
		if _, err := s.Commit(b.Context(), store.Txn{Do: []store.Op{{Key: objectName(i), Value: kibibyte}}}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWatch measures from a commit until every watcher has its event.
func BenchmarkWatch(b *testing.B) {
	for _, watchers := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("fan-out/%d", watchers), func(b *testing.B) { fanOut(b, watchers) })
	}
	b.Run("catch up", func(b *testing.B) {
		s := openTest(b, Config{Dir: b.TempDir()})
		const revisions = 10_000
		var wg sync.WaitGroup
		for w := range 50 {
			wg.Go(func() {
				for i := range int64(revisions / 50) {
					if _, err := s.Commit(b.Context(), store.Txn{Do: []store.Op{{Key: objectName(int64(w)*1000 + i), Value: kibibyte}}}); err != nil {
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

func fanOut(b *testing.B, watchers int) {
	s := openTest(b, Config{Dir: b.TempDir()})
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	seen := make(chan struct{}, watchers)
	for range watchers {
		wg.Go(func() {
			for _, err := range s.Watch(ctx, 0) {
				if err != nil {
					return // the benchmark is over
				}
				seen <- struct{}{}
			}
		})
	}
	for i := int64(0); b.Loop(); i++ {
		if _, err := s.Commit(ctx, store.Txn{Do: []store.Op{{Key: objectName(i), Value: kibibyte}}}); err != nil {
			b.Fatal(err)
		}
		for range watchers {
			<-seen
		}
	}
}
