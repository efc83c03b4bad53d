package state

import (
	"fmt"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/store"
)

// change is a transaction on the empty view that reads some nodes and writes others.
func change(reads, writes []string) *Tx {
	t := Begin(newView())
	for _, name := range reads {
		t.Object("Node", name)
	}
	for _, name := range writes {
		t.Put(&carav1.Node{Metadata: &carav1.ObjectMeta{Name: name}})
	}
	return t
}

func names(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return out
}

// TestBatchJoins: a batch has only changes that are independent and fit into one transaction.
func TestBatchJoins(t *testing.T) {
	large := func(name string) *Tx {
		t := Begin(newView())
		t.Put(&carav1.Node{Metadata: &carav1.ObjectMeta{Name: name, Uid: strings.Repeat("x", store.MaxTxn/2)}})
		return t
	}
	aboutAgent := change(nil, names("b", 1))
	aboutAgent.Agent.Node = "n1"
	for name, tt := range map[string]struct {
		first, second *Tx
		joins         bool
	}{
		"independent":                      {change(names("a", 1), names("a", 1)), change(names("b", 1), names("b", 1)), true},
		"both read the same":               {change(names("r", 1), names("a", 1)), change(names("r", 1), names("b", 1)), true},
		"the second reads what is written": {change(nil, names("a", 1)), change(names("a", 1), names("b", 1)), false},
		"the second writes what was read":  {change(names("b", 1), names("a", 1)), change(nil, names("b", 1)), false},
		"both write the same":              {change(nil, names("a", 1)), change(nil, names("a", 1)), false},
		"as many writes as fit":            {change(nil, names("a", store.MaxOps-1)), change(nil, names("b", 1)), true},
		"too many writes":                  {change(nil, names("a", store.MaxOps)), change(nil, names("b", 1)), false},
		"as many conditions as fit":        {change(names("r", store.MaxConditions), names("a", 1)), change(names("r", 2), names("b", 1)), true},
		"too many conditions":              {change(names("r", store.MaxConditions), names("a", 1)), change(names("s", 1), names("b", 1)), false},
		"too large":                        {large("a"), large("b"), false},
		"the second depends on an agent":   {change(nil, names("a", 1)), aboutAgent, false},
		"the first depends on an agent":    {aboutAgent, change(nil, names("a", 1)), false},
	} {
		t.Run(name, func(t *testing.T) {
			var b batch
			if !b.join(tt.first, 0) {
				t.Fatal("the first change does not join an empty batch")
			}
			reads, writes := len(b.tx.reads), len(b.tx.order)
			if joins := b.join(tt.second, 1); joins != tt.joins {
				t.Fatalf("the second change joins: %v, want %v", joins, tt.joins)
			}
			if !tt.joins && (len(b.tx.reads) != reads || len(b.tx.order) != writes || len(b.members) != 1) {
				t.Error("a change that does not join left something in the batch")
			}
			if tt.joins && len(b.tx.order) != len(tt.first.writes) {
				t.Errorf("%d keys in order, %d writes", len(b.tx.order), len(b.tx.writes))
			}
		})
	}
}
