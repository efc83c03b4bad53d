package storetest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caravanserai/cara/store"
)

// Kibibyte is the value of an object in benchmarks.
var Kibibyte = bytes.Repeat([]byte("0123456789abcdef"), 64) //nolint:gochecknoglobals // a constant

// Write returns a transaction that writes 1 KiB to one of 20,000 objects.
func Write(i int64) store.Txn {
	return store.Txn{Do: []store.Op{{Key: objectName(i), Value: Kibibyte}}}
}

func objectName(i int64) string { return fmt.Sprintf("projects/project-%06d", i%20_000) }

// Each runs work b.N times on n goroutines.
func Each(b *testing.B, n int, work func(i int64) error) {
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

// Writes measures single writes of 1 KiB by a number of writers.
func Writes(b *testing.B, s store.Store, writers int) {
	b.Helper()
	Each(b, writers, func(i int64) error {
		_, err := s.Commit(b.Context(), Write(i))
		return err
	})
}

// Reads measures one object and a listing of a thousand, 1 KiB each.
func Reads(b *testing.B, s store.Store) {
	b.Helper()
	const objects = 1000
	for i := range int64(objects) {
		if _, err := s.Commit(b.Context(), Write(i)); err != nil {
			b.Fatal(err)
		}
	}
	for _, readers := range []int{1, 16} {
		b.Run(fmt.Sprintf("get/%d", readers), func(b *testing.B) {
			Each(b, readers, func(i int64) error {
				_, err := s.Get(b.Context(), objectName(i%objects))
				return err
			})
		})
	}
	b.Run("list of 1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			page, err := s.List(b.Context(), "projects/", store.ListOptions{})
			if err != nil || len(page.KVs) != objects {
				b.Fatalf("%d objects, %v", len(page.KVs), err)
			}
		}
	})
}

// FanOut measures from a commit until every watcher has its event.
func FanOut(b *testing.B, s store.Store, watchers int) {
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
		if _, err := s.Commit(ctx, Write(i)); err != nil {
			b.Fatal(err)
		}
		for range watchers {
			<-seen
		}
	}
}
