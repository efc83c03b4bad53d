package apiserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
	"github.com/caravanserai/cara/store"
	"github.com/caravanserai/cara/store/pebble"
)

// killed is a store that accepts some commits and then none, as if the server was killed.
type killed struct {
	store.Store
	mu   sync.Mutex
	left int // commits that are still accepted; a negative number means all
}

func (k *killed) Commit(ctx context.Context, t store.Txn) (int64, error) {
	if !k.accepts() {
		return 0, errors.New("the server was killed")
	}
	return k.Store.Commit(ctx, t)
}

func (k *killed) accepts() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left == 0 {
		return false
	}
	k.left--
	return true
}

// ordered is a store that notes whether parts of a snapshot are written before its first claim, and whether they are removed
// before it.
type ordered struct {
	store.Store
	mu     sync.Mutex
	first  string          // the project of the first claim
	done   map[string]bool // "written" and "removed": the first claim was
	parts  map[string]int
	others int
}

func (o *ordered) Commit(ctx context.Context, t store.Txn) (int64, error) {
	what, first := "", false
	for _, op := range t.Do {
		if !strings.HasPrefix(op.Key, state.Key(state.KindStaged, "")) {
			continue
		}
		what = "written"
		if op.Delete {
			what = "removed"
		}
		first = first || strings.HasSuffix(op.Key, "/"+o.first)
	}
	o.mu.Lock()
	if o.parts[what]++; what != "" && !first && !o.done[what] {
		o.others++
	}
	o.mu.Unlock()
	rev, err := o.Store.Commit(ctx, t)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done[what] = o.done[what] || first && err == nil
	return rev, err
}

// The first claim of a large snapshot is written before the others, and removed before the others. So its absence tells a
// publication that a sweep has begun.
func TestTheFirstPartIsAlone(t *testing.T) {
	st, err := pebble.Open(pebble.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	o := &ordered{Store: st, first: "p-000", done: map[string]bool{}, parts: map[string]int{}}
	f := farmOn(t, newHouse(t, func(c *Config) { c.Store = o }))
	t.Cleanup(func() {
		if err := errors.Join(f.stop(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	f.createSource(t)
	if err := f.publish(t, 1, versioned(500, "new")); err != nil {
		t.Fatal(err)
	}
	if o.others > 0 || o.parts["written"] != 10 || o.parts["removed"] != 10 {
		t.Errorf("%d of %v parts came before the first", o.others, o.parts)
	}
}

// versioned are the claims of a source with n projects in a version.
func versioned(n int, version string) []*carav1.ClaimSpec {
	specs := make([]*carav1.ClaimSpec, n)
	for i := range specs {
		specs[i] = claim(fmt.Sprintf("p-%03d", i))
		specs[i].Hash = version
	}
	return specs
}

// shown returns a view's state of a source: the sequence of its head, and the number of claims with each hash.
func shown(v *state.View, source string) string {
	src, _ := state.Get[*carav1.Source](v, source)
	hashes := map[string]int{}
	for _, c := range state.List[*carav1.Claim](v, source+"/") {
		switch {
		case c.GetStatus().GetState() == api.ClaimApplied:
			hashes[c.GetSpec().GetHash()+" applied"]++
		case c.GetSpec().GetPresent():
			hashes[c.GetSpec().GetHash()]++
		default:
			hashes["absent"]++
		}
	}
	return fmt.Sprintf("%d %v", src.GetStatus().GetSnapshot().GetSequence(), hashes)
}

// A snapshot that does not fit into one transaction is visible completely or not at all, in every view and after a kill at
// any commit. No staged claim is left, and the source can publish again.
func TestLargeSnapshotIsWhole(t *testing.T) {
	const before, after = "1 map[old:2 old applied:1]", "2 map[absent:1 new:129 new applied:1]"
	for survived, whole := 0, false; !whole; survived++ {
		st, err := pebble.Open(pebble.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		k := &killed{Store: st, left: -1}
		f := farmOn(t, newHouse(t, func(c *Config) { c.Store = k }))
		f.createSource(t)
		if err := f.publish(t, 1, append(versioned(2, "old"), &carav1.ClaimSpec{Project: web("gone"), Hash: "old", Present: true})); err != nil {
			t.Fatal(err)
		}
		_, err = f.reconciler.UpdateClaims(t.Context(), &carav1.UpdateClaimsRequest{Source: "platform", Updates: []*carav1.ClaimUpdate{
			{Project: "p-000", Status: &carav1.ClaimStatus{State: api.ClaimApplied}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		from := f.db.Cache.Revision()
		k.left = survived
		err = f.publish(t, 2, versioned(130, "new"), "gone")
		whole = err == nil
		txs, _, _ := f.db.Cache.After(from)
		heads := 0
		for _, tx := range txs {
			count := map[string]int{}
			for _, ch := range tx.Changes {
				count[ch.Kind]++
			}
			heads += count[api.KindSource]
			if claims := count[api.KindClaim]; count[api.KindSource] == 1 && claims != 131 || heads == 0 && claims > 0 {
				t.Errorf("killed after %d commits: a transaction has %d claims and %d heads, after %d heads", survived, claims, count[api.KindSource], heads)
			}
		}
		if got := shown(f.db.Cache.View(), "platform"); got != before && got != after {
			t.Errorf("killed after %d commits, a view has %s", survived, got)
		}
		if err := f.stop(); err != nil {
			t.Fatal(err)
		}

		again := farmOn(t, newHouse(t, func(c *Config) { c.Store = st }))
		again.uid = f.uid
		eventually(t, "nothing staged is left", func() bool { return len(again.db.Cache.View().StagedSources()) == 0 })
		got := shown(again.db.Cache.View(), "platform")
		if got != before && (got != after || heads == 0) {
			t.Errorf("killed after %d commits, the next server has %s", survived, got)
		}
		if got == before {
			if err := again.publish(t, 2, versioned(130, "new"), "gone"); err != nil {
				t.Errorf("killed after %d commits, the next server: %v", survived, err)
			}
			got = shown(again.db.Cache.View(), "platform")
		}
		if got != after {
			t.Errorf("killed after %d commits, the next snapshot shows %s, want %s", survived, got, after)
		}
		if whole && survived < 7 {
			t.Errorf("the snapshot took %d commits, want several parts", survived)
		}
		if err := again.stop(); err != nil {
			t.Fatal(err)
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Changes of claims between the head and the end of folding are kept: a new status, a removed claim.
func TestStagedClaimsAreWritten(t *testing.T) {
	st, err := pebble.Open(pebble.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	k := &killed{Store: st, left: -1}
	f := farmOn(t, newHouse(t, func(c *Config) { c.Store = k }))
	t.Cleanup(func() {
		if err := errors.Join(f.stop(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	f.createSource(t)
	if err := f.publish(t, 1, versioned(1, "old")); err != nil {
		t.Fatal(err)
	}
	k.left = 4 // three parts and the head
	if err := f.publish(t, 2, versioned(130, "new")[1:], "p-000"); err == nil {
		t.Fatal("the snapshot was folded")
	}
	k.left = -1
	if got, want := shown(f.db.Cache.View(), "platform"), "2 map[absent:1 new:129]"; got != want {
		t.Fatalf("the head shows %s, want %s", got, want)
	}
	_, err = f.reconciler.UpdateClaims(t.Context(), &carav1.UpdateClaimsRequest{Source: "platform", Updates: []*carav1.ClaimUpdate{
		{Project: "p-000", Remove: true},
		{Project: "p-001", Status: &carav1.ClaimStatus{State: api.ClaimApplied}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	const want = "2 map[new:128 new applied:1]"
	if got := shown(f.db.Cache.View(), "platform"); got != want {
		t.Errorf("before folding: %s, want %s", got, want)
	}
	if err := f.objects.SettleSnapshots(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := shown(f.db.Cache.View(), "platform"); got != want {
		t.Errorf("after folding: %s, want %s", got, want)
	}
}

// An object that is too large for the store is rejected with its size and the limit.
func TestObjectTooLarge(t *testing.T) {
	f := newFarm(t)
	p := claim("p")
	p.Project.Metadata.Annotations = map[string]string{"note": strings.Repeat("x", store.MaxValue)}
	testproblem.Want(t, f.publish(t, 1, []*carav1.ClaimSpec{p}), codes.ResourceExhausted, "TooLarge")
}
