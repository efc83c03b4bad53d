package etcd

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/store"
)

// These benchmarks have the names of those of store/pebble.

var kibibyte = bytes.Repeat([]byte("0123456789abcdef"), 64)

func objectName(i int64) string { return fmt.Sprintf("projects/project-%06d", i%20_000) }

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

// BenchmarkCommit measures single writes of 1 KiB on one and on three members, whose disk all three share here.
func BenchmarkCommit(b *testing.B) {
	for _, members := range []int{1, 3} {
		c := testetcd.Start(b, testetcd.Config{Members: members})
		for _, writers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("store/%d members/%d", members, writers), func(b *testing.B) {
				s := openTest(b, c, Config{})
				each(b, writers, func(i int64) error {
					_, err := s.Commit(b.Context(), store.Txn{Do: []store.Op{{Key: objectName(i), Value: kibibyte}}})
					return err
				})
			})
		}
	}
}

// BenchmarkRead measures one object and a listing of a thousand, 1 KiB each.
func BenchmarkRead(b *testing.B) {
	c := testetcd.Start(b, testetcd.Config{})
	s := openTest(b, c, Config{})
	for i := range int64(1000) {
		if _, err := s.Commit(b.Context(), store.Txn{Do: []store.Op{{Key: objectName(i), Value: kibibyte}}}); err != nil {
			b.Fatal(err)
		}
	}
	for _, readers := range []int{1, 16} {
		b.Run(fmt.Sprintf("get/%d", readers), func(b *testing.B) {
			each(b, readers, func(i int64) error {
				_, err := s.Get(b.Context(), objectName(i%1000))
				return err
			})
		})
	}
	b.Run("list of 1000", func(b *testing.B) {
		for b.Loop() {
			page, err := s.List(b.Context(), "projects/", store.ListOptions{})
			if err != nil || len(page.KVs) != 1000 {
				b.Fatalf("%d objects, %v", len(page.KVs), err)
			}
		}
	})
}

// BenchmarkWatch measures from a commit until every watcher has its event.
func BenchmarkWatch(b *testing.B) {
	c := testetcd.Start(b, testetcd.Config{})
	for _, watchers := range []int{1, 100} {
		b.Run(fmt.Sprintf("fan-out/%d", watchers), func(b *testing.B) { fanOut(b, openTest(b, c, Config{}), watchers) })
	}
}

func fanOut(b *testing.B, s *Store, watchers int) {
	b.Helper()
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
