package etcd

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/store"
)

// join announces a server in the directory of a prefix.
func join(t *testing.T, c *testetcd.Cluster, id string) *Directory {
	t.Helper()
	d, err := openTest(t, c, Config{Prefix: "/joined/"}).Join(t.Context(), id, []byte("server "+id))
	must(t, err)
	return d
}

// knows waits until a directory has these servers and holders ("node" to "server/instance").
func knows(t *testing.T, d *Directory, servers []string, holders map[string]string) {
	t.Helper()
	eventually(t, "the directory has the servers and the holders", func() bool {
		all := d.Servers()
		have := map[string]string{}
		for _, node := range []string{"n1", "n2"} {
			if h, ok := d.Holder(node); ok {
				have[node] = h.Server + "/" + h.Instance
			}
		}
		for id, value := range all {
			if string(value) != "server "+id {
				t.Fatalf("server %s says %q", id, value)
			}
		}
		return slices.Equal(slices.Sorted(maps.Keys(all)), servers) && maps.Equal(have, holders)
	})
}

// TestDirectory: all servers know which of them run, and which has the newest session of a node. What a server holds ends with it.
func TestDirectory(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	one, two := join(t, c, "1"), join(t, c, "2")
	hold := func(d *Directory, node, instance string) int64 {
		t.Helper()
		revision, err := d.Hold(t.Context(), node, instance)
		must(t, err)
		if h, ok := d.Holder(node); !ok || h.Since < revision {
			t.Errorf("after Hold at %d the holder of %s is %v", revision, node, h)
		}
		return revision
	}
	first := hold(one, "n1", "a")
	knows(t, two, []string{"1", "2"}, map[string]string{"n1": "1/a"})
	if second := hold(two, "n1", "a"); second <= first {
		t.Errorf("held at %d and then at %d", first, second)
	}
	hold(two, "n2", "b")
	knows(t, one, []string{"1", "2"}, map[string]string{"n1": "2/a", "n2": "2/b"})
	one.Release("n1", "a") // too late: another server has it
	two.Release("n2", "other")
	two.Release("n2", "b")
	knows(t, one, []string{"1", "2"}, map[string]string{"n1": "2/a"})
	must(t, two.Close())
	knows(t, one, []string{"1"}, map[string]string{})
}

// TestDirectoryFollows: a follower hears all holders first, and then each change, also that a server has gone with what it held.
func TestDirectoryFollows(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	one, two := join(t, c, "1"), join(t, c, "2")
	_, err := two.Hold(t.Context(), "n1", "a")
	must(t, err)
	knows(t, one, []string{"1", "2"}, map[string]string{"n1": "2/a"})
	heard := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- one.Follow(ctx, func(nodes []string) {
			if nodes == nil {
				heard <- "servers"
			}
			for _, node := range nodes {
				heard <- node
			}
		})
	}()
	until := func(want ...string) { // in any order
		t.Helper()
		for len(want) > 0 {
			select {
			case have := <-heard:
				want = slices.DeleteFunc(want, func(w string) bool { return w == have })
			case <-time.After(patience):
				t.Fatalf("%s is not told", want)
			}
		}
	}
	until("n1")
	_, err = two.Hold(t.Context(), "n2", "b")
	must(t, err)
	until("n2")
	must(t, one.FreeServer(t.Context(), "3"))
	must(t, one.FreeServer(t.Context(), "1"))
	knows(t, one, []string{"1", "2"}, map[string]string{"n1": "2/a", "n2": "2/b"})
	work := acquire(t, two.Store, "work", "2")
	must(t, one.FreeServer(t.Context(), "2"))
	until("servers", "n1")
	knows(t, one, []string{"1", "2"}, map[string]string{}) // it is still there, and announces itself again
	acquire(t, one.Store, "work", "1")
	mustCommit(t, one.Store, put("a", 1))
	if _, err := two.Commit(t.Context(), under(work, "a", 1)); err == nil {
		t.Error("a server whose loops were taken writes with its lease")
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("follow: %v", err)
	}
}

// TestCutOff: a server that was cut off from etcd for longer than its keys live does not believe that the others see it, until
// it has announced itself again.
func TestCutOff(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	d := join(t, c, "1")
	_, err := d.Hold(t.Context(), "n1", "a")
	must(t, err)
	must(t, c.Member(0).Pause())
	knows(t, d, nil, map[string]string{})
	if _, err := d.Hold(t.Context(), "n1", "a"); err == nil {
		t.Error("it holds a node that the others cannot see")
	}
	must(t, c.Member(0).Resume())
	eventually(t, "it is announced again", func() bool { return len(d.Servers()) == 1 })
}

// TestHoldIsInTheLog: a reader of the log learns the revision at which a server has got an agent, so it can wait until it has all that was
// written before.
func TestHoldIsInTheLog(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	d := join(t, c, "1")
	first := mustCommit(t, d.Store, put("a", 1))
	want, err := d.Hold(t.Context(), "n1", "a")
	must(t, err)
	d.Release("n1", "a")
	for change, err := range d.Watch(t.Context(), first) {
		must(t, err)
		if len(change.Events) > 0 {
			t.Errorf("a record about an agent is an object: %v", change)
		}
		if change.Revision > want { // the release
			break
		}
		if change.Revision != want {
			t.Errorf("revision %d, want %d", change.Revision, want)
		}
	}
}

// TestTheAgentOfATransaction: what a server says about a node is not written if its agent has connected to a server since, also if the server
// has not heard of it.
func TestTheAgentOfATransaction(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	one, two := join(t, c, "1"), join(t, c, "2")
	about := func(revision int64) error {
		txn := put("a", 1)
		txn.Agent = store.AgentRecord{Node: "n1", Modified: revision}
		_, err := one.Commit(t.Context(), txn)
		return err
	}
	must(t, about(0))
	first, err := two.Hold(t.Context(), "n1", "a")
	must(t, err)
	if err := about(0); !errors.Is(err, store.ErrAgentMoved) {
		t.Errorf("the agent has connected: %v", err)
	}
	must(t, about(first))
	second, err := two.Hold(t.Context(), "n1", "b")
	must(t, err)
	if err := about(first); !errors.Is(err, store.ErrAgentMoved) {
		t.Errorf("the agent has connected again: %v", err)
	}
	knows(t, one, []string{"1", "2"}, map[string]string{"n1": "2/b"})
	must(t, one.FreeServer(t.Context(), "2"))
	if err := about(second); !errors.Is(err, store.ErrAgentMoved) {
		t.Errorf("the record has ended with its server: %v", err)
	}
	must(t, about(0))
	conflict := put("a", 1)
	conflict.If, conflict.Agent = []store.Condition{{Key: "a"}}, store.AgentRecord{Node: "n1", Modified: second}
	if _, err := one.Commit(t.Context(), conflict); !errors.Is(err, store.ErrConflict) {
		t.Errorf("an object has changed, too: %v", err)
	}
}

// TestNoServerDuringACopy: while a program copies the data, no server starts.
func TestNoServerDuringACopy(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	s := openTest(t, c, Config{Prefix: "/joined/"})
	l := acquire(t, s, LeaseCopy, "copy")
	if _, err := s.Join(t.Context(), "1", nil); !errors.Is(err, errCopying) {
		t.Errorf("join: %v", err)
	}
	l.Release()
	_, err := s.Join(t.Context(), "1", nil)
	must(t, err)
}

// TestFreeServerIsComplete: the loops of a server that has ended are free when the directory does not have it any more, because the caller
// of FreeServer may end at that moment.
func TestFreeServerIsComplete(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	one, two := join(t, c, "1"), join(t, c, "2")
	knows(t, one, []string{"1", "2"}, map[string]string{})
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		acquire(t, two.Store, name, "2")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- one.Follow(ctx, func([]string) {
			if _, there := one.Servers()["2"]; !there {
				cancel()
			}
		})
	}()
	_ = one.FreeServer(ctx, "2") // the answer to its last request may be lost
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("follow: %v", err)
	}
	if left, err := one.Holders(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("%v are held, %v", left, err)
	}
}

// slow delays the transactions of a client: they arrive after something else has happened.
type slow struct {
	clientv3.KV
	before   func()
	answered bool // the client gets the answer
}

func (s slow) Txn(ctx context.Context) clientv3.Txn {
	return slowTxn{s.KV.Txn(context.WithoutCancel(ctx)), s}
}

func (s slow) Put(ctx context.Context, key, value string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	s.before()
	return s.KV.Put(context.WithoutCancel(ctx), key, value, opts...)
}

type slowTxn struct {
	clientv3.Txn
	slow
}

func (s slowTxn) If(c ...clientv3.Cmp) clientv3.Txn  { return slowTxn{s.Txn.If(c...), s.slow} }
func (s slowTxn) Then(o ...clientv3.Op) clientv3.Txn { return slowTxn{s.Txn.Then(o...), s.slow} }
func (s slowTxn) Else(o ...clientv3.Op) clientv3.Txn { return slowTxn{s.Txn.Else(o...), s.slow} }

func (s slowTxn) Commit() (*clientv3.TxnResponse, error) {
	s.before()
	answer, err := s.Txn.Commit()
	if err == nil && !s.answered {
		err = context.DeadlineExceeded
	}
	return answer, err
}

// slowly returns a directory whose client is slow.
func slowly(d *Directory, s slow) *Directory {
	s.KV = d.client.KV
	c := &connection{cfg: d.cfg, keys: d.keys, client: &clientv3.Client{KV: s}, health: d.health, closed: d.closed}
	return &Directory{Store: &Store{connection: c}, id: d.id, lease: d.lease, nodes: map[string]Held{}}
}

// TestALateHoldTakesNothing: a record that is written late, when its agent has connected to another server, does not take the agent
// from there. While the agent waits for it, it is written in place of a record that was faster.
func TestALateHoldTakesNothing(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	one, two := join(t, c, "1"), join(t, c, "2")
	_, err := one.Hold(t.Context(), "n1", "a")
	must(t, err)
	overtake := func(instance string) func() {
		return sync.OnceFunc(func() {
			_, err := two.Hold(t.Context(), "n1", instance)
			must(t, err)
		})
	}
	if _, err := slowly(one, slow{before: overtake("b")}).Hold(t.Context(), "n1", "a"); err == nil {
		t.Error("a request without an answer succeeds")
	}
	kv, err := two.readKey(t.Context(), two.keys.node("n1"))
	if err != nil || string(kv.GetValue()) != "2\nb" {
		t.Errorf("the record is %q, %v", kv.GetValue(), err)
	}
	_, err = slowly(one, slow{before: overtake("c"), answered: true}).Hold(t.Context(), "n1", "d")
	must(t, err)
	knows(t, two, []string{"1", "2"}, map[string]string{"n1": "1/d"})
}

// TestAgentsStayWithAnOlderVersion: no server takes an agent while a server of an older version is active.
func TestAgentsStayWithAnOlderVersion(t *testing.T) {
	c := testetcd.Start(t, testetcd.Config{})
	d := join(t, c, "1")
	grant, err := d.client.Grant(t.Context(), 60)
	must(t, err)
	_, err = d.client.Put(t.Context(), d.keys.lock(), "an older one", clientv3.WithLease(grant.ID))
	must(t, err)
	if _, err := d.Hold(t.Context(), "n1", "a"); !errors.Is(err, errOlder) {
		t.Errorf("hold: %v", err)
	}
	must(t, d.revoke(t.Context(), grant.ID))
	_, err = d.Hold(t.Context(), "n1", "a")
	must(t, err)
	kv, err := d.readKey(t.Context(), d.keys.lock())
	if err != nil || string(kv.GetValue()) != retiredLock {
		t.Errorf("the lock is %q, %v", kv.GetValue(), err)
	}
}
