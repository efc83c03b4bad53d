package robustness

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/internal/test/testlink"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/etcd"
)

// TestRobustnessLateWrite holds a write of a loop on its way to etcd until the lease of its server has passed on. The random traffic has no
// such write, because its other conditions fail first; this one has no other condition.
func TestRobustnessLateWrite(t *testing.T) {
	testneed.NotShort(t)
	t.Parallel()
	c := testetcd.Start(t, testetcd.Config{})
	link, err := testlink.Loopback(t.Context(), strings.TrimPrefix(c.Endpoints[0], "http://"))
	must(t, err)
	t.Cleanup(func() { must(t, link.Close()) })
	first, second := openAt(t, "http://"+link.Addr()), openAt(t, c.Endpoints[0])
	lease, err := first.Acquire(t.Context(), "reconciler", candidate("1"))
	must(t, err)
	late := store.Txn{Lease: lease.Lease, Do: []store.Op{{Key: "projects/late", Value: []byte("of the former server")}}}

	link.HoldThere()
	answered := make(chan error, 1)
	go func() {
		_, err := first.Commit(t.Context(), late)
		answered <- err
	}()
	next, err := second.Acquire(t.Context(), "reconciler", candidate("2"))
	must(t, err)
	_, err = second.Commit(t.Context(), store.Txn{Lease: next.Lease, Do: []store.Op{{Key: "projects/next", Value: []byte("of the next server")}}})
	must(t, err)
	link.Release()
	if err := <-answered; err == nil {
		t.Error("the late write was answered as done")
	}
	if kv, err := second.Get(t.Context(), "projects/late"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the late write is in the store: %q, %v", kv.Value, err)
	}
}

func candidate(server string) etcd.Candidate {
	return etcd.Candidate{Server: server, Waiting: func(string, error) {}}
}

// openAt opens the store of one server, which reaches etcd at this endpoint.
func openAt(t *testing.T, endpoint string) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{endpoint}, Prefix: "/late/", Lease: 2 * time.Second, Timeout: time.Minute})
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
