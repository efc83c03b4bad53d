package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testlaw"
)

// Differs reports a project that is not as in git, whether or not a reconciliation changes it.
func TestDiffers(t *testing.T) {
	const me = "source/platform"
	tests := map[string]struct {
		row  Row
		want []bool // of each step
	}{
		"new":     {row(testlaw.Claim("web", "a:1"), nil), []bool{true}},
		"changed": {row(testlaw.Claim("web", "a:2", testlaw.Applied), testlaw.Project("web", "a:1", me)), []bool{true}},
		"in place, not known to be": {
			row(testlaw.Claim("web", "a:1"), testlaw.Project("web", "a:1", me)), []bool{false},
		},
		"overridden": {
			row(testlaw.Claim("web", "a:2", testlaw.Applied), testlaw.Project("web", "a:1", me), override(api.OverrideSpec)), []bool{true},
		},
		"overridden, and the same": {
			row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "a:1", me), override(api.OverrideSpec)), []bool{false},
		},
		"held down": {row(testlaw.Claim("web", "a:1", testlaw.Applied), nil, override(api.OverrideDeletion)), []bool{true}},
		"overridden, and gone from git": {
			row(testlaw.Claim("web", "a:1", testlaw.Applied, testlaw.Gone), testlaw.Project("web", "a:1", me), override(api.OverrideSpec)), []bool{true},
		},
		"expired":                        {row(testlaw.Claim("web", "a:1", testlaw.Expiring(testlaw.Now)), nil), []bool{false}},
		"being deleted":                  {row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "a:1", me, testlaw.Terminating(api.ReasonPruned))), []bool{true}},
		"gone from git":                  {row(testlaw.Claim("web", "a:1", testlaw.Applied, testlaw.Gone), testlaw.Project("web", "a:1", me)), []bool{true}},
		"gone from both":                 {row(testlaw.Claim("web", "a:1", testlaw.Applied, testlaw.Gone), nil), []bool{false}},
		"of a person, not to be adopted": {row(testlaw.Claim("web", "a:1"), testlaw.Project("web", "a:1", "user/ada")), []bool{true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := Diff(Input{Source: testlaw.Source(), Rows: []Row{tt.row}, Now: testlaw.Now})
			var have []bool
			for i := range p.Steps {
				have = append(have, p.Steps[i].Differs())
			}
			if d := cmp.Diff(tt.want, have); d != "" {
				t.Errorf("steps %v: %s", lines(p), d)
			}
		})
	}
}

func TestUnclaimed(t *testing.T) {
	const me = "source/platform"
	earlier := testlaw.Claim("earlier", "a:1", testlaw.Applied, func(c *carav1.Claim) { c.Spec.SourceUid = "s0" })
	in := Input{Source: testlaw.Source(), Now: testlaw.Now, Rows: []Row{
		row(nil, testlaw.Project("never", "a:1", me)),
		row(earlier, testlaw.Project("earlier", "a:1", me)),
		row(nil, testlaw.Project("leaving", "a:1", me, testlaw.Terminating(api.ReasonPruned))),
		row(nil, testlaw.Project("other", "a:1", "user/ada")),
		row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "a:1", me)),
	}}
	var have []string
	for _, s := range Unclaimed(in) {
		have = append(have, s.Project+": "+s.Message)
	}
	want := []string{"never: the source owns it and never declared it", "earlier: an earlier source of this name declared it"}
	if d := cmp.Diff(want, have); d != "" {
		t.Error(d)
	}
}
