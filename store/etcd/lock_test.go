package etcd

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/store"
)

// locked opens two stores of one prefix. The first one holds the lock; the result of the second one's Lock is sent to the channel.
func locked(t *testing.T, c *testetcd.Cluster) (first, second *Store, result <-chan error) {
	t.Helper()
	cfg := Config{Lease: 2 * time.Second, Prefix: "/lock-" + t.Name()[len("Test"):] + "/"}
	first, second = openTest(t, c, cfg), openTest(t, c, cfg)
	must(t, first.Lock(t.Context(), []byte("first"), func([]byte, error) { t.Error("the lock is not free") }))
	waits, done := make(chan []byte, 100), make(chan error, 1)
	go func() {
		done <- second.Lock(t.Context(), []byte("second"), func(holder []byte, err error) {
			if err == nil {
				waits <- holder
			}
		})
	}()
	if holder := <-waits; string(holder) != "first" {
		t.Errorf("the second one waits for %q", holder)
	}
	return first, second, done
}

func TestLockIsReleased(t *testing.T) {
	first, second, result := locked(t, testetcd.Start(t, testetcd.Config{}))
	mustCommit(t, first, put("a", 1))
	must(t, first.Close())
	must(t, <-result)
	mustCommit(t, second, put("a", 1))
}

// A server that was paused for longer than its lease lives cannot write over its successor, even if nothing has told it yet.
func TestLateWriteIsRefused(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	first, second, result := locked(t, c)
	_, err := second.client.Revoke(t.Context(), first.lock.held.Load().lease) // as etcd does when the lease has expired
	must(t, err)
	must(t, <-result)
	mustCommit(t, second, put("a", 2))
	if revision, err := first.Commit(t.Context(), put("a", 1)); !errors.Is(err, ErrLockLost) {
		t.Errorf("the late write: revision %d, %v", revision, err)
	}
	<-first.Done()
	if !errors.Is(first.Err(), ErrLockLost) {
		t.Errorf("the first one's state: %v", first.Err())
	}
	if kv, err := second.Get(t.Context(), "a"); err != nil || len(kv.Value) != 2 {
		t.Errorf("get: %v, %v", kv, err)
	}
}

// A holder that loses etcd for longer than its lease ends, and etcd gives the lock to the next one.
func TestLeaseRunsOut(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	s := openTest(t, c, Config{Lease: time.Second, Timeout: time.Second})
	must(t, s.Lock(t.Context(), nil, func([]byte, error) {}))
	must(t, c.Member(0).Pause())
	<-s.Done()
	if !errors.Is(s.Err(), ErrLockLost) {
		t.Errorf("state: %v", s.Err())
	}
	must(t, c.Member(0).Resume())
	next := openTest(t, c, Config{Prefix: s.cfg.Prefix, Lease: time.Second})
	must(t, next.Lock(t.Context(), nil, func([]byte, error) {}))
}

// The lock survives the loss of etcd's leader, and a leader that hangs.
func TestLockSurvivesLeaderChange(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{Members: 3})
	s := openTest(t, c, Config{Timeout: 5 * time.Second, Lease: 20 * time.Second})
	must(t, s.Lock(t.Context(), nil, func([]byte, error) {}))
	pace := time.NewTicker(25 * time.Millisecond) // a member that has missed more than 5,000 writes may not come back within minutes
	defer pace.Stop()
	for _, fault := range []func(i int){c.Kill, func(i int) { must(t, c.Member(i).Pause()) }} {
		at := leader(t, c, s)
		fault(at)
		for begin := time.Now(); time.Since(begin) < 2*s.cfg.Lease; <-pace.C { // longer than the lease
			mustCommit(t, s, put("a", 1))
			if err := s.Err(); errors.Is(err, ErrLockLost) {
				t.Fatal(err)
			}
		}
		if c.Member(at).Exited() {
			c.Run(at)
		} else {
			must(t, c.Member(at).Resume())
		}
	}
}

// Of many that start at once, one gets the lock at a time, and each one gets it.
func TestLockUnderContention(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	var mu sync.Mutex
	holders, most := 0, 0
	var wg sync.WaitGroup
	for range 5 {
		s := openTest(t, c, Config{Prefix: "/contended/"})
		wg.Go(func() {
			if err := s.Lock(t.Context(), nil, func([]byte, error) {}); err != nil {
				t.Errorf("lock: %v", err)
				return
			}
			mu.Lock()
			holders++
			most = max(most, holders)
			mu.Unlock()
			if _, err := s.Commit(t.Context(), put("a", 1)); err != nil {
				t.Errorf("commit: %v", err)
			}
			mu.Lock()
			holders--
			mu.Unlock()
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	wg.Wait()
	if most != 1 {
		t.Errorf("%d held the lock at once", most)
	}
}

func TestLockWaitEnds(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	holder, waiter := openTest(t, c, Config{Prefix: "/wait/"}), openTest(t, c, Config{Prefix: "/wait/"})
	must(t, holder.Lock(t.Context(), nil, func([]byte, error) {}))
	ctx, cancel := context.WithCancel(t.Context())
	if err := waiter.Lock(ctx, nil, func([]byte, error) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("lock: %v", err)
	}
	cancel()
}

// All servers that start at once get the shared value of one of them.
func TestShared(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	values := make([][]byte, 5)
	var wg sync.WaitGroup
	for i := range values {
		s := openTest(t, c, Config{Prefix: "/shared/"})
		wg.Go(func() {
			value, err := s.Shared(t.Context(), func() ([]byte, error) { return []byte{byte(i)}, nil })
			if err != nil {
				t.Errorf("shared: %v", err)
			}
			values[i] = value
		})
	}
	wg.Wait()
	for _, value := range values {
		if !bytes.Equal(value, values[0]) || len(value) != 1 {
			t.Fatalf("values differ: %v", values)
		}
	}
	s := openTest(t, c, Config{Prefix: "/shared-large/"})
	if _, err := s.Shared(t.Context(), func() ([]byte, error) { return make([]byte, store.MaxValue+1), nil }); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a large value: %v", err)
	}
}
