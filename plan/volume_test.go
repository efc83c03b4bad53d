package plan_test

import (
	"testing"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/plan"
)

func TestReattaches(t *testing.T) {
	for _, test := range []struct {
		name, volumeOwner, owner, adopt string
		want                            bool
	}{
		{"the same source", "source/a", "source/a", api.AdoptNever, true},
		{"another source", "source/a", "source/b", api.AdoptAlways, false},
		{"a person after a source", "source/a", "user/ann", "", false},
		{"the same person", "user/ann", "user/ann", "", true},
		{"another person", "user/ann", "user/bob", "", true},
		{"a person after nobody", "", "user/ann", "", true},
		{"a source after a person", "user/ann", "source/a", api.AdoptIfUnowned, false},
		{"a source after a person, adopting all", "user/ann", "source/a", api.AdoptAlways, true},
		{"a person after a node", "node/n1", "user/ann", "", false},
		{"a source after a node", "node/n1", "source/a", api.AdoptAlways, false},
		{"a source after nobody", "", "source/a", api.AdoptIfUnowned, true},
		{"a source after nobody, by default", "", "source/a", "", true},
		{"a source after nobody, adopting never", "", "source/a", api.AdoptNever, false},
	} {
		if got := plan.Reattaches(test.volumeOwner, test.owner, test.adopt); got != test.want {
			t.Errorf("%s: %t, want %t", test.name, got, test.want)
		}
	}
}
