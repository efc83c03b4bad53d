package etcd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/internal/test/testlink"
	"github.com/caravanserai/cara/internal/test/testnet"
)

// TestMemberWithoutOthers: a member that the others do not reach still answers the store, and costs it no call and no lease. Nor does one
// that the others reach, and do not hear.
func TestMemberWithoutOthers(t *testing.T) {
	for name, program := range testetcd.Versions {
		for _, reached := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/reached=%v", name, reached), func(t *testing.T) {
				t.Parallel()
				withoutOthers(t, program, reached)
			})
		}
	}
}

// withoutOthers uses a store while the others do not hear one of three members, and reach it or not.
func withoutOthers(t *testing.T, program testetcd.Program, reached bool) {
	t.Helper()
	network := testnet.New(t, 3)
	c := testetcd.Start(t, testetcd.Config{Program: program, Members: 3, Machines: network.Machines})
	alone := (c.Leader() + 1) % 3
	s := openTest(t, c, Config{Endpoints: onLoopback(t, c.Endpoints), Lease: time.Minute})
	lease := acquire(t, s, "work", "test")
	for i, m := range network.Machines {
		if i != alone {
			must(t, m.Ignore(t.Context(), network.Machines[alone]))
			if !reached {
				must(t, network.Machines[alone].Ignore(t.Context(), m))
			}
		}
	}
	client := admin(t, c, "")
	eventually(t, "the member knows no leader", func() bool {
		said, err := client.Status(t.Context(), c.Endpoints[alone])
		return err == nil && said.Leader == 0
	})
	for i := range 30 {
		key := fmt.Sprintf("key/%d", i)
		revision, err := s.Commit(t.Context(), under(lease, key, 1))
		if err != nil {
			t.Fatalf("commit %d: %v", i, err)
		}
		if got, err := s.Get(t.Context(), key); err != nil || got.Modified != revision {
			t.Fatalf("read %d: revision %d (%v), want %d", i, got.Modified, err, revision)
		}
		if err := lease.renew(time.Now().Add(patience)); err != nil {
			t.Fatalf("renewal %d: %v", i, err)
		}
	}
}

// onLoopback returns endpoints on loopback that lead to others, because the store takes no others without TLS.
func onLoopback(t *testing.T, endpoints []string) (out []string) {
	t.Helper()
	for _, endpoint := range endpoints {
		link, err := testlink.Loopback(t.Context(), strings.TrimPrefix(endpoint, "http://"))
		must(t, err)
		t.Cleanup(func() { must(t, link.Close()) })
		out = append(out, "http://"+link.Addr())
	}
	return out
}
