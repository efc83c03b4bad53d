package sources

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An existing path that is not read keeps what was declared at or below it.
func TestWhatIsNotReadIsNotGone(t *testing.T) {
	link := []Unread{{Path: "apps", Why: UnreadLink}}
	for name, tt := range map[string]struct {
		change  func(*Reading)
		held    string // of project a, which apps/a.yaml declared
		warning string
	}{
		"the file is gone": {func(*Reading) {}, "", ""},
		"its folder is a link": {
			func(r *Reading) { r.Unread = link },
			"apps is a symbolic link, and links are not followed",
			"apps: is a symbolic link, and links are not followed; what was declared there keeps running and blocks the prune until the path is removed: a",
		},
		"its folder is a submodule": {
			func(r *Reading) { r.Unread = []Unread{{Path: "apps", Why: UnreadSubmodule}} },
			"apps is a submodule, and submodules are not followed",
			"apps: is a submodule, and submodules are not followed; what was declared there keeps running and blocks the prune until the path is removed: a",
		},
		"a folder of a like name is a link": {func(r *Reading) { r.Unread = []Unread{{Path: "app", Why: UnreadLink}} }, "", ""},
		"its folder is a link and it is declared elsewhere": {
			func(r *Reading) {
				r.Unread = link
				r.Files = append(r.Files, file("apps2/a.yaml", "h1", "a=1"))
			}, "", "",
		},
		"it is hidden, and changed": {
			func(r *Reading) { r.Hidden = []File{{Path: ".apps/a.yaml", Hash: "h9"}} },
			".apps/a.yaml is hidden: its name or its folder's name begins with a dot",
			".apps/a.yaml: is hidden: its name or its folder's name begins with a dot; what was declared there keeps running and blocks the prune until the path is removed: a",
		},
		"its content is hidden under another name": {
			func(r *Reading) { r.Hidden = []File{{Path: ".old/x.yaml", Hash: "h1"}} },
			".old/x.yaml is hidden: its name or its folder's name begins with a dot",
			".old/x.yaml: is hidden: its name or its folder's name begins with a dot; what was declared there keeps running and blocks the prune until the path is removed: a",
		},
		"something else is hidden": {func(r *Reading) { r.Hidden = []File{{Path: ".ci/b.yaml", Hash: "h8"}} }, "", ""},
		"it is a file of another tool now": {
			func(r *Reading) {
				r.Files = append(r.Files, Parsed{Path: "apps/a.yaml", Hash: "h7", Skipped: "a Compose file"})
			},
			"apps/a.yaml is skipped: it looks like a Compose file",
			"apps/a.yaml: is skipped: it looks like a Compose file; what was declared there keeps running and blocks the prune until the path is removed: a",
		},
		"it is empty now": {func(r *Reading) { r.Files = append(r.Files, Parsed{Path: "apps/a.yaml", Hash: "h6"}) }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster{}
			c.apply(Delta(read("r1", file("apps/a.yaml", "h1", "a=1"), file("b.yaml", "h2", "b=1")), c.claims()))
			r := read("r2", file("b.yaml", "h2", "b=1"))
			tt.change(&r)
			change := Delta(r, c.claims())
			c.apply(change)
			if !change.Complete() {
				t.Errorf("problems %v", change.Problems)
			}
			declaredElsewhere := slices.ContainsFunc(r.Files, func(f Parsed) bool { return len(f.Docs) > 0 && f.Docs[0].Project.Metadata.Name == "a" })
			if present := tt.held != "" || declaredElsewhere; c["a"].Present != present || c["a"].Held != tt.held {
				t.Errorf("present %v, held %q; want %q", c["a"].Present, c["a"].Held, tt.held)
			}
			var warnings []string
			for _, w := range change.Warnings {
				warnings = append(warnings, fmt.Sprintf("%s: %s", w.File, w.Message))
			}
			var want []string
			if tt.warning != "" {
				want = []string{tt.warning}
			}
			if diff := cmp.Diff(want, warnings); diff != "" {
				t.Error(diff)
			}
			if again := Delta(r, c.claims()); len(again.Upserts) != 0 {
				t.Errorf("the same reading writes %v again", again.Upserts)
			}
			gone := Delta(read("r3", file("b.yaml", "h2", "b=1")), c.claims())
			if c["a"].Present && !slices.Equal(gone.Absent, []string{"a"}) {
				t.Errorf("absent %v once the path is removed", gone.Absent)
			}
		})
	}
}
