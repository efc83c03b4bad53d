package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/store"
)

// acquire takes a lease that is free, or fails the test.
func acquire(t *testing.T, s *Store, name, server string) *Lease {
	t.Helper()
	l, err := s.Acquire(t.Context(), name, Candidate{Server: server, Waiting: func(string, error) {}})
	must(t, err)
	return l
}

// under returns a transaction that needs a lease.
func under(l *Lease, key string, size int) store.Txn {
	txn := put(key, size)
	txn.Lease = l.Lease
	return txn
}

func isLost(l *Lease) bool {
	select {
	case <-l.Lost():
		return true
	default:
		return false
	}
}

// rivals opens two stores of one prefix. The first one holds the lease "work"; the second one waits for it.
func rivals(t *testing.T, c *testetcd.Cluster) (first, second *Store, has *Lease, next <-chan *Lease) {
	t.Helper()
	cfg := Config{Lease: time.Minute, Prefix: "/lease-" + t.Name()[len("Test"):] + "/"}
	first, second = openTest(t, c, cfg), openTest(t, c, cfg)
	has = acquire(t, first, "work", "1")
	waits, got := make(chan string, 100), make(chan *Lease, 1)
	go func() {
		l, err := second.Acquire(t.Context(), "work", Candidate{Server: "2", Waiting: func(holder string, err error) {
			if err == nil {
				waits <- holder
			}
		}})
		if err != nil {
			t.Errorf("acquire: %v", err)
		}
		got <- l
	}()
	if holder := <-waits; holder != "1" {
		t.Errorf("the second one waits for %q", holder)
	}
	return first, second, has, got
}

// TestLeases: each name is a right of its own, that its holder can give back while it goes on with others.
func TestLeases(t *testing.T) {
	first, second, work, next := rivals(t, testetcd.Start(t, testetcd.Config{}))
	other := acquire(t, second, "other", "2")
	if have, err := first.Holders(t.Context()); err != nil || !maps.Equal(have, map[string]string{"work": "1", "other": "2"}) {
		t.Errorf("the holders are %v, %v", have, err)
	}
	mustCommit(t, first, under(work, "a", 1))
	work.Release()
	again := <-next
	mustCommit(t, second, under(again, "a", 1))
	mustCommit(t, second, under(other, "b", 1))
	if !isLost(work) || isLost(again) || isLost(other) {
		t.Error("the wrong lease is lost")
	}
	must(t, second.Close())
	acquire(t, first, "work", "1") // closing has released it
}

// TestLateWriteWithLease: a server that was paused for longer than its lease lives cannot write over its successor, even if nothing has told it
// yet. What needs no lease, it goes on writing.
func TestLateWriteWithLease(t *testing.T) {
	first, second, has, next := rivals(t, testetcd.Start(t, testetcd.Config{}))
	must(t, second.revoke(t.Context(), has.id)) // as etcd does when the lease has expired
	mustCommit(t, second, under(<-next, "a", 2))
	if revision, err := first.Commit(t.Context(), under(has, "a", 1)); !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("the late write: revision %d, %v", revision, err)
	}
	<-has.Lost()
	if kv, err := second.Get(t.Context(), "a"); err != nil || len(kv.Value) != 2 {
		t.Errorf("get: %v, %v", kv, err)
	}
	conflict := under(has, "a", 1)
	conflict.If = []store.Condition{{Key: "a", Modified: 1}}
	if _, err := first.Commit(t.Context(), conflict); !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("a late write with another condition that does not hold: %v", err)
	}
	mustCommit(t, first, put("a", 3))
}

// TestLeaseEndsInTime: the work of a server that loses etcd ends before etcd can give its lease to another one.
func TestLeaseEndsInTime(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	s := openTest(t, c, Config{Lease: 3 * time.Second, Timeout: time.Second})
	l := acquire(t, s, "work", "1")
	must(t, c.Member(0).Pause()) // time does not pass for it, so it gives nothing away meanwhile
	<-l.Lost()
	must(t, c.Member(0).Resume())
	eventually(t, "the store works again", func() bool {
		kv, err := s.readKey(t.Context(), s.keys.lease("work"))
		return err == nil && (kv == nil || kv.CreateRevision == l.Created)
	})
	acquire(t, s, "work", "1")
}

// TestRevokeLeasesOf ends the leases of the server that is meant, and of no other one.
func TestRevokeLeasesOf(t *testing.T) {
	first, second, has, next := rivals(t, testetcd.Start(t, testetcd.Config{}))
	other := acquire(t, second, "other", "2")
	for _, server := range []string{"", "3"} {
		must(t, second.revokeLeasesOf(t.Context(), server))
	}
	mustCommit(t, first, under(has, "a", 1))
	must(t, second.revokeLeasesOf(t.Context(), "1"))
	mustCommit(t, second, under(<-next, "a", 2))
	mustCommit(t, second, under(other, "a", 2))
	if _, err := first.Commit(t.Context(), under(has, "a", 1)); !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("the late write: %v", err)
	}
}

// TestLeaseUnderContention: of many that start at once, one has the lease at a time, and each one gets it.
func TestLeaseUnderContention(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	var mu sync.Mutex
	holders, most := 0, 0
	count := func(by int) {
		mu.Lock()
		defer mu.Unlock()
		holders += by
		most = max(most, holders)
	}
	var wg sync.WaitGroup
	for range 5 {
		s := openTest(t, c, Config{Prefix: "/contended-lease/"})
		wg.Go(func() {
			l, err := s.Acquire(t.Context(), "work", Candidate{Delay: func() time.Duration { return time.Millisecond }, Waiting: func(string, error) {}})
			if err != nil {
				t.Errorf("acquire: %v", err)
				return
			}
			count(1)
			if _, err := s.Commit(t.Context(), under(l, "a", 1)); err != nil {
				t.Errorf("commit: %v", err)
			}
			count(-1)
			l.Release()
		})
	}
	wg.Wait()
	if most != 1 {
		t.Errorf("%d had the lease at once", most)
	}
}

func TestAcquireEnds(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	holder, waiter := openTest(t, c, Config{Prefix: "/acquire/"}), openTest(t, c, Config{Prefix: "/acquire/"})
	acquire(t, holder, "work", "1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := waiter.Acquire(ctx, "work", Candidate{Waiting: func(string, error) { cancel() }}); !errors.Is(err, context.Canceled) {
		t.Errorf("acquire: %v", err)
	}
}

// TestTheLargestTransactionUnderALease: etcd limits the conditions of a transaction, and a lease and an agent are conditions, too.
func TestTheLargestTransactionUnderALease(t *testing.T) {
	s := openTest(t, testetcd.Start(t, testetcd.Config{}), Config{})
	txn := store.Txn{Lease: acquire(t, s, "work", "1").Lease, Agent: store.AgentRecord{Node: "n1"}}
	for i := range store.MaxOps {
		txn.Do = append(txn.Do, store.Op{Key: fmt.Sprintf("k%d", i), Value: []byte("v")})
	}
	for i := range store.MaxConditions {
		txn.If = append(txn.If, store.Condition{Key: fmt.Sprintf("k%d", i)})
	}
	if _, err := s.Commit(t.Context(), txn); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), txn); !errors.Is(err, store.ErrConflict) {
		t.Errorf("again, although the keys exist: %v", err)
	}
}

// TestOlderVersionGoesFirst: a server of an older version that is active runs all loops, so nobody has a lease until it has ended. After
// that none of them becomes active again.
func TestOlderVersionGoesFirst(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	s := openTest(t, c, Config{})
	grant, err := s.client.Grant(t.Context(), 60)
	must(t, err)
	_, err = s.client.Put(t.Context(), s.keys.lock(), "an older one", clientv3.WithLease(grant.ID))
	must(t, err)
	waits, got := make(chan string, 100), make(chan *Lease, 1)
	go func() {
		l, err := s.Acquire(t.Context(), "work", Candidate{Server: "1", Waiting: func(holder string, err error) {
			if err == nil {
				waits <- holder
			}
		}})
		if err != nil {
			t.Errorf("acquire: %v", err)
		}
		got <- l
	}()
	if holder := <-waits; holder != "an older one" {
		t.Errorf("it waits for %q", holder)
	}
	must(t, s.revoke(t.Context(), grant.ID))
	mustCommit(t, s, under(<-got, "a", 1))
	kv, err := s.readKey(t.Context(), s.keys.lock())
	if err != nil || kv == nil || kv.Lease != 0 {
		t.Errorf("an older server finds the lock free: %v, %v", kv, err)
	}
}

// TestNoLeaseDuringACopy: while a program copies the data, no loop begins to run, also if the copy begins at the last moment.
func TestNoLeaseDuringACopy(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	s, copies := openTest(t, c, Config{Prefix: "/copied/"}), openTest(t, c, Config{Prefix: "/copied/"})
	var copying *Lease
	delay := func() time.Duration {
		if copying == nil {
			copying = acquire(t, copies, LeaseCopy, "copy")
		}
		return 0
	}
	waited := ""
	_, err := s.Acquire(t.Context(), "work", Candidate{Server: "1", Delay: delay, Waiting: func(holder string, err error) {
		if waited == "" && err == nil {
			waited = holder
			copying.Release()
		}
	}})
	if must(t, err); waited != "copy" {
		t.Errorf("it has waited for %q", waited)
	}
}

// TestNothingIsHeldAfterClose: a lease that is granted while the store closes is given back.
func TestNothingIsHeldAfterClose(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	s, other := openTest(t, c, Config{Prefix: "/closing/"}), openTest(t, c, Config{Prefix: "/closing/"})
	s.releaseAll()
	if _, err := s.Acquire(t.Context(), "work", Candidate{Server: "1", Waiting: func(string, error) {}}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("acquire: %v", err)
	}
	if have, err := other.Holders(t.Context()); err != nil || len(have) > 0 {
		t.Errorf("the holders are %v, %v", have, err)
	}
}

// TestReleaseAtAFullStore: etcd takes the end of a lease also when it takes no other writes.
func TestReleaseAtAFullStore(t *testing.T) {
	s := openTest(t, testetcd.Start(t, testetcd.Config{}), Config{})
	l := acquire(t, s, "work", "1")
	s.health.failedWrite(rpctypes.ErrNoSpace)
	l.Release()
	if have, err := s.Holders(t.Context()); err != nil || len(have) > 0 {
		t.Errorf("the holders are %v, %v", have, err)
	}
}
