package etcd

import (
	"context"
	"errors"
	"slices"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/internal/test/testetcd"
)

// announced waits until these servers are announced.
func announced(t *testing.T, s *Store, want ...string) Announced {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		all, err := s.Announced(ctx)
		must(t, err)
		var have []string
		for _, value := range all.Servers {
			have = append(have, string(value))
		}
		if slices.Sort(have); slices.Equal(have, want) {
			return all
		}
	}
}

// A server is announced until it closes its store, also if its lease was lost in between.
func TestAnnounce(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	first, second := openTest(t, c, Config{Prefix: "/announced/"}), openTest(t, c, Config{Prefix: "/announced/"})
	first.Announce("1", []byte("one"))
	second.Announce("2", []byte("two"))
	must(t, second.Lock(t.Context(), []byte("holder"), func([]byte, error) {}))
	if all := announced(t, first, "one", "two"); string(all.Holder) != "holder" {
		t.Errorf("the holder is %q", all.Holder)
	}
	_, err := second.client.Revoke(t.Context(), clientv3.LeaseID(first.announced.Load()))
	must(t, err)
	announced(t, second, "two")
	announced(t, second, "one", "two") // it is announced again
	must(t, first.Close())
	if all := announced(t, second, "two"); len(all.Servers) != 1 {
		t.Errorf("%d servers are announced", len(all.Servers))
	}
	if lease, err := second.announce(0, "3", make([]byte, 3<<20)); err == nil || lease != 0 {
		t.Errorf("a description that etcd has not written has the lease %x, and would not be written again: %v", lease, err)
	}
}

// Depose ends the lock of the holder that is meant, and of no other one. The deposed holder cannot write any more.
func TestDepose(t *testing.T) {
	first, second, result := locked(t, testetcd.Start(t, testetcd.Config{}))
	for _, other := range []string{"", "another"} {
		must(t, second.Depose(t.Context(), []byte(other)))
	}
	mustCommit(t, first, put("a", 1))
	must(t, second.Depose(t.Context(), []byte("first")))
	must(t, <-result)
	mustCommit(t, second, put("a", 2))
	if _, err := first.Commit(t.Context(), put("a", 1)); !errors.Is(err, ErrLockLost) {
		t.Errorf("the late write: %v", err)
	}
	must(t, second.Depose(t.Context(), []byte("first"))) // a late one
	mustCommit(t, second, put("a", 3))
}
