package state

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// TestWaitLeavesNothing: a call that names a revision which never comes leaves no memory behind.
func TestWaitLeavesNothing(t *testing.T) {
	c := NewCache(10)
	ended, end := context.WithCancel(t.Context())
	end()
	if err := c.Wait(ended, 1<<62); !errors.Is(err, context.Canceled) {
		t.Errorf("it waits for a revision that never comes: %v", err)
	}
	if len(c.waiters) != 0 {
		t.Errorf("%d waiters are left", len(c.waiters))
	}
}

// TestApplyTogether: transactions that become visible together have the same effect as one after the other, and leave older views alone.
func TestApplyTogether(t *testing.T) {
	project := func(name, owner string) proto.Message {
		return &carav1.Project{Metadata: &carav1.ObjectMeta{Name: name, Owner: owner}}
	}
	txs := func() []Transaction {
		source := func(generation string) proto.Message {
			return &carav1.Source{
				Metadata: &carav1.ObjectMeta{Name: "s"}, Status: &carav1.SourceStatus{Snapshot: &carav1.Snapshot{Generation: generation}},
			}
		}
		claim := &carav1.Claim{Metadata: &carav1.ObjectMeta{Name: "s/a"}, Spec: &carav1.ClaimSpec{Source: "s", Present: true}}
		staged := StagedName("s", "g", "a")
		return []Transaction{
			{Rev: 2, Changes: []Change{{Kind: api.KindProject, Name: "b", New: project("b", "user/a")}, {Kind: api.KindProject, Name: "a", New: project("a", "user/b")}}},
			{Rev: 3},
			{Rev: 4, Changes: []Change{{Kind: api.KindProject, Name: "a"}, {Kind: api.KindSource, Name: "s", New: source("")}}},
			{Rev: 6, Changes: []Change{{Kind: KindStaged, Name: staged, New: &carav1.StagedClaim{Metadata: &carav1.ObjectMeta{Name: staged}, Claim: claim}}}},
			{Rev: 7, Changes: []Change{{Kind: api.KindSource, Name: "s", New: source("g")}}},
			{Rev: 8, Changes: []Change{{Kind: api.KindClaim, Name: "s/a", New: proto.CloneOf(claim)}, {Kind: KindStaged, Name: staged}}},
			{Rev: 9},
		}
	}
	seen := func(c *Cache) string { // everything that readers and watchers can see
		v := c.View()
		out := fmt.Sprintln(v.Rev, v.Changed, c.Followed(), v.ProjectsOfOwner("user/a"), v.ProjectsOfOwner("user/b"), v.StagedSources())
		_ = v.chunks(v.Kinds(), func(objects []Change) error {
			for _, ch := range objects {
				out += fmt.Sprintln(ch.Kind, ch.Name, v.Entry(ch.Kind, ch.Name).Rev, ch.New)
			}
			return nil
		})
		told, _, _ := c.After(1)
		for _, tx := range told {
			for _, ch := range tx.Changes {
				out += fmt.Sprintln(tx.Rev, ch.Kind, ch.Name, ch.Old, ch.New)
			}
		}
		return out
	}
	first := Transaction{Rev: 1, Changes: []Change{{Kind: api.KindProject, Name: "a", New: project("a", "user/a")}}}
	one := NewCache(100)
	one.Apply(first)
	for _, tx := range txs() {
		one.Apply(tx)
	}
	if v := one.View(); v.Rev != 9 || v.Changed != 8 {
		t.Errorf("the view is at revision %d and changed last at %d, want 9 and 8", v.Rev, v.Changed)
	}
	for split := range len(txs()) {
		c := NewCache(100)
		c.Apply(first)
		before, old := c.View(), seen(c)
		all := txs()
		if split > 0 {
			c.Apply(all[:split]...)
		}
		c.Apply(all[split:]...)
		if diff := cmp.Diff(seen(one), seen(c)); diff != "" {
			t.Errorf("%d transactions, then the rest (-one by one +together):\n%s", split, diff)
		}
		same := NewCache(100)
		same.Apply(first)
		same.newest.Store(before)
		if diff := cmp.Diff(old, seen(same)); diff != "" {
			t.Errorf("an older view has changed:\n%s", diff)
		}
	}
}
