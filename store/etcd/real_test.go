package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/storetest"
)

// patience ends a test that hangs.
const patience = 3 * time.Minute

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for until := time.Now().Add(patience); !holds(); {
		if time.Now().After(until) {
			t.Fatalf("%s: not after %s", what, patience)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

func put(key string, size int) store.Txn {
	return store.Txn{Do: []store.Op{{Key: key, Value: bytes.Repeat([]byte("v"), size)}}}
}

// mustCommit repeats a commit, as a client does, until it succeeds.
func mustCommit(t *testing.T, s *Store, txn store.Txn) (revision int64) {
	t.Helper()
	eventually(t, "commit", func() bool {
		got, err := s.Commit(t.Context(), txn)
		revision = got
		return err == nil
	})
	return revision
}

// admin is etcd's own client, for what an operator does.
func admin(t *testing.T, c *testetcd.Cluster, user string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints, TLS: c.TLSConfig(), Username: user, Password: user, DialTimeout: patience, Logger: zap.NewNop()})
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	return client
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// TestContractSecured runs the suite with etcd's TLS and authentication, on three members, while the store has a lease. Its
// user has only the rights that the documentation names. Newer etcds let only root compact.
func TestContractSecured(t *testing.T) {
	for name, program := range testetcd.Versions {
		t.Run(name, func(t *testing.T) {
			c := testetcd.Start(t, testetcd.Config{Program: program, Members: 3, TLS: true})
			login(t, c)
			storetest.Run(t, func(t *testing.T) store.Store {
				s := openTest(t, c, Config{Username: "cara", Password: "cara"})
				acquire(t, s, "work", "test")
				root := openTest(t, c, Config{Prefix: s.cfg.Prefix, Username: "root", Password: "root"})
				return compacted{Store: s, root: root}
			})
		})
	}
}

// compacted is a store that another user compacts.
type compacted struct {
	store.Store
	root *Store
}

func (c compacted) Compact(ctx context.Context, revision int64) error {
	return c.root.Compact(ctx, revision)
}

// login makes a user who may use the prefixes of the tests, and turns authentication on.
func login(t *testing.T, c *testetcd.Cluster) {
	t.Helper()
	client := admin(t, c, "")
	for _, name := range []string{"root", "cara"} {
		_, err := client.RoleAdd(t.Context(), name)
		must(t, err)
		_, err = client.UserAdd(t.Context(), name, name)
		must(t, err)
		_, err = client.UserGrantRole(t.Context(), name, name)
		must(t, err)
	}
	_, err := client.RoleGrantPermission(t.Context(), "cara", "/test-", end("/test-"), clientv3.PermissionType(clientv3.PermReadWrite))
	must(t, err)
	_, err = client.AuthEnable(t.Context())
	must(t, err)
}

func TestLoginErrors(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	login(t, c)
	for _, test := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"nobody", Config{Prefix: "/test-a/"}, "give a user and a password"},
		{"wrong password", Config{Prefix: "/test-a/", Username: "cara", Password: "hunter2"}, "check the user and the password"},
		{"wrong prefix", Config{Prefix: "/cara/", Username: "cara", Password: "cara"}, "grant-permission"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.cfg.Endpoints = c.Endpoints
			_, err := Open(t.Context(), test.cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("open: %v, want %q", err, test.want)
			}
		})
	}
}

// A watch that catches up gets the largest transactions whole, although etcd sends them in fragments.
func TestFragments(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	s := openTest(t, c, Config{})
	const large = 5
	for i := range large {
		var txn store.Txn
		for n := range store.MaxOps {
			txn.Do = append(txn.Do, store.Op{Key: fmt.Sprintf("k/%03d", n), Value: bytes.Repeat([]byte{byte(i)}, store.MaxTxn/store.MaxOps-5)})
		}
		if _, err := s.Commit(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	for change, err := range s.Watch(t.Context(), 0) {
		must(t, err)
		if len(change.Events) != store.MaxOps {
			t.Fatalf("transaction %d has %d events, want %d", seen, len(change.Events), store.MaxOps)
		}
		for _, e := range change.Events {
			if e.KV.Value[0] != byte(seen) || e.KV.Modified != change.Revision {
				t.Fatalf("transaction %d has a value of another one", seen)
			}
		}
		if seen++; seen == large {
			break
		}
	}
}

// A listing that is read in several parts shows one revision: the first and the last key always have the same value.
func TestListingOfManyParts(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	s := openTest(t, c, Config{})
	for i := range 10 * firstPart {
		mustCommit(t, s, put(fmt.Sprintf("k/%05d", i), 10))
	}
	both := func(value string) store.Txn {
		return store.Txn{Do: []store.Op{{Key: "k/", Value: []byte(value)}, {Key: "k/last", Value: []byte(value)}}}
	}
	mustCommit(t, s, both("first"))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range 500 {
			mustCommit(t, s, both(fmt.Sprint(i)))
		}
		mustCommit(t, s, both("end"))
	})
	for value := ""; value != "end" && !t.Failed(); {
		page, err := s.List(t.Context(), "k/", store.ListOptions{})
		must(t, err)
		first, last := page.KVs[0], page.KVs[len(page.KVs)-1]
		if first.Modified != last.Modified || last.Modified > page.Revision || len(page.KVs) != 10*firstPart+2 {
			t.Errorf("%d keys at revision %d; the first was written at %d, the last at %d", len(page.KVs), page.Revision, first.Modified, last.Modified)
		}
		value = string(last.Value)
	}
}

// Writes of other programs make gaps that neither a watch nor a listing shows.
func TestOtherPrefixes(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	storetest.Run(t, func(t *testing.T) store.Store {
		near := openTest(t, c, Config{}) // its prefix sorts beside that of the store
		return beside{Store: openTest(t, c, Config{}), other: near}
	})
}

// beside writes to another store before each commit.
type beside struct {
	store.Store
	other *Store
}

func (b beside) Commit(ctx context.Context, t store.Txn) (int64, error) {
	if _, err := b.other.Commit(ctx, put("other", 1)); err != nil && !errors.Is(err, context.Canceled) {
		return 0, err
	}
	return b.Store.Commit(ctx, t)
}

// While the leader is killed and another member is paused, a watch sees each transaction exactly once, in order, and no
// acknowledged one is lost.
func TestLeaderChange(t *testing.T) {
	for name, program := range testetcd.Versions {
		t.Run(name, func(t *testing.T) {
			c := testetcd.Start(t, testetcd.Config{Program: program, Members: 3})
			s := openTest(t, c, Config{Timeout: 5 * time.Second})
			acknowledged := make(chan int64, 1000)
			faults := make(chan struct{})
			go func() {
				defer close(acknowledged)
				for i := range 300 {
					switch i {
					case 100:
						c.Kill(leader(t, c, s))
						close(faults)
					case 200:
						for n := range c.Endpoints {
							if c.Member(n).Exited() {
								c.Run(n)
							}
						}
						must(t, c.Member(leader(t, c, s)).Pause())
					}
					acknowledged <- mustCommit(t, s, put(fmt.Sprintf("k/%d", i), 100))
				}
			}()
			var changes []store.Change
			last := int64(0)
			for change, err := range s.Watch(t.Context(), 0) {
				must(t, err)
				if change.Revision <= last || len(change.Events) != 1 {
					t.Fatalf("revision %d with %d events follows %d", change.Revision, len(change.Events), last)
				}
				last = change.Revision
				changes = append(changes, change)
				if change.Events[0].KV.Key == "k/299" {
					break
				}
			}
			<-faults
			at := 0
			for revision := range acknowledged {
				for at < len(changes) && changes[at].Revision < revision {
					at++
				}
				if at < len(changes) && changes[at].Revision != revision {
					t.Fatalf("the watch missed revision %d", revision)
				}
			}
		})
	}
}

// leader returns which member leads.
func leader(t *testing.T, c *testetcd.Cluster, s *Store) (index int) {
	eventually(t, "a leader", func() bool {
		for i, endpoint := range c.Endpoints {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			status, err := s.client.Status(ctx, endpoint)
			cancel()
			if err == nil && status.Leader == status.Header.MemberId {
				index = i
				return true
			}
		}
		return false
	})
	return index
}

// When etcd does not answer, requests end with advice and Err says so. When it is back, everything goes on.
func TestSilence(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	s := openTest(t, c, Config{Timeout: time.Second})
	mustCommit(t, s, put("a", 1))
	must(t, c.Member(0).Pause())
	if _, err := s.Commit(t.Context(), put("b", 1)); err == nil || !strings.Contains(err.Error(), "etcd does not answer") {
		t.Errorf("commit: %v", err)
	}
	if _, err := s.Get(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "etcd does not answer") {
		t.Errorf("get: %v", err)
	}
	eventually(t, "the trouble is told", func() bool { return s.Err() != nil })
	c.Kill(0)
	if _, err := Open(t.Context(), Config{Endpoints: c.Endpoints, Timeout: time.Second}); err == nil || !strings.Contains(err.Error(), "etcd does not answer") {
		t.Errorf("open: %v", err)
	}
	c.Run(0)
	eventually(t, "the trouble is over", func() bool { return s.Err() == nil })
	mustCommit(t, s, put("c", 1))
	for change, err := range s.Watch(t.Context(), 0) {
		must(t, err)
		if change.Events[0].KV.Key == "c" {
			break
		}
	}
}

// When etcd's quota is used up, writes fail with advice and Err says so; reads go on. When the operator has made room, the
// store notices by itself.
func TestNoSpace(t *testing.T) {
	for name, program := range testetcd.Versions {
		t.Run(name, func(t *testing.T) {
			c := testetcd.Start(t, testetcd.Config{Program: program, Args: []string{"--quota-backend-bytes", "16777216"}})
			s := openTest(t, c, Config{})
			var err error
			for err == nil {
				_, err = s.Commit(t.Context(), put("big", store.MaxValue))
			}
			if !errors.Is(err, rpctypes.ErrNoSpace) || !strings.Contains(err.Error(), "etcdctl alarm disarm") || !errors.Is(s.Err(), rpctypes.ErrNoSpace) {
				t.Fatalf("commit: %v; state: %v", err, s.Err())
			}
			tellsSizes(t, s, name == "new")
			kv, err := s.Get(t.Context(), "big")
			must(t, err)
			must(t, s.Compact(t.Context(), kv.Modified))
			client := admin(t, c, "")
			_, err = client.Defragment(t.Context(), c.Endpoints[0])
			must(t, err)
			_, err = client.AlarmDisarm(t.Context(), &clientv3.AlarmMember{})
			must(t, err)
			eventually(t, "the trouble is over", func() bool { return s.Err() == nil })
			mustCommit(t, s, put("small", 1))
		})
	}
}

func TestLimitsOfEtcd(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{Args: []string{"--max-request-bytes", "65536", "--max-txn-ops", "8"}})
	s := openTest(t, c, Config{})
	var many store.Txn
	for i := range 9 {
		many.Do = append(many.Do, store.Op{Key: fmt.Sprint(i)})
	}
	for want, txn := range map[string]store.Txn{"--max-request-bytes must be": put("a", 100_000), "--max-txn-ops must be": many} {
		if _, err := s.Commit(t.Context(), txn); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("commit: %v, want %q", err, want)
		}
	}
}

func TestForeignData(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	client := admin(t, c, "")
	for prefix, test := range map[string]struct{ key, value, want string }{
		"/registry/": {"/registry/pods", "x", `first key "/registry/pods"`},
		"/newer/":    {"/newer/format", "2", "start a newer version"},
	} {
		_, err := client.Put(t.Context(), test.key, test.value)
		must(t, err)
		if _, err := Open(t.Context(), Config{Endpoints: c.Endpoints, Prefix: prefix}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("open: %v, want %q", err, test.want)
		}
	}
}

// The history is trimmed, so that etcd's database does not grow without end.
func TestHistoryIsTrimmed(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	s := openTest(t, c, Config{History: time.Nanosecond})
	first := mustCommit(t, s, put("a", 1))
	mustCommit(t, s, put("a", 1))
	eventually(t, "the history is trimmed", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, err := range s.Watch(ctx, first) {
			return errors.Is(err, store.ErrCompacted)
		}
		return false
	})
	if kv, err := s.Get(t.Context(), "a"); err != nil || len(kv.Value) != 1 {
		t.Errorf("get: %v, %v", kv, err)
	}
}
