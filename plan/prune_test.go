package plan

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testlaw"
)

// leaving returns n rows of projects that are no longer in platform and that nothing protects.
func leaving(n int) []Row {
	var rows []Row
	for i := range n {
		name := fmt.Sprintf("old-%02d", i)
		rows = append(rows, row(testlaw.Claim(name, "a:1", testlaw.Applied, testlaw.Gone), testlaw.Project(name, "a:1", "source/platform")))
	}
	return rows
}

// keptBack is a project whose path is not read any more.
func keptBack() []Row {
	return []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied, testlaw.Held("apps is a symbolic link")), testlaw.Project("web", "a:1", "source/platform"))}
}

// TestPruneGate closes the gate with each condition of the prune rule separately.
func TestPruneGate(t *testing.T) {
	tests := map[string]struct {
		source  func(*carav1.Source)
		gone    []Row
		present int
		held    []Row
		owned   int
		reasons []string // each is part of the reason at its index; empty: allowed
	}{
		"all conditions hold":                        {gone: leaving(1), present: 5, owned: 6},
		"the snapshot did not load whole":            {gone: leaving(1), present: 5, owned: 6, source: func(s *carav1.Source) { s.Status.Snapshot.Complete = false }, reasons: []string{"did not load whole"}},
		"a file has errors":                          {gone: leaving(1), present: 5, owned: 6, source: func(s *carav1.Source) { s.Status.Snapshot.ErrorCount = 1 }, reasons: []string{"1 error in the files at 1a2b3c4"}},
		"a declared project is held back":            {gone: leaving(1), present: 5, held: keptBack(), owned: 6, reasons: []string{"what is not read is not gone: web (web.yaml:1): apps is a symbolic link; remove the path, or put it back"}},
		"only a declared project is held back":       {present: 5, held: keptBack(), owned: 6, reasons: []string{"what is not read is not gone: web (web.yaml:1): apps is a symbolic link"}},
		"the source cannot be read now":              {gone: leaving(1), present: 5, owned: 6, source: testlaw.FetchFailed, reasons: []string{"cannot be read now (Unreachable)"}},
		"the source is suspended":                    {gone: leaving(1), present: 5, owned: 6, source: func(s *carav1.Source) { s.Spec.Suspend = true }, reasons: []string{"suspended"}},
		"prune is off":                               {gone: leaving(1), present: 5, owned: 6, source: func(s *carav1.Source) { s.Spec.Prune = new(false) }, reasons: []string{"prune is off"}},
		"the set is empty":                           {gone: leaving(1), present: 0, owned: 1, reasons: []string{"declares no project at all"}},
		"the set is empty and that is meant":         {gone: leaving(1), present: 0, owned: 1, source: func(s *carav1.Source) { s.Spec.AllowEmpty = true }},
		"first pass after creation":                  {gone: leaving(1), present: 5, owned: 6, source: func(s *carav1.Source) { s.Status.AttemptedRevision = "" }, reasons: []string{"first pass"}},
		"up to three are never stopped by the limit": {gone: leaving(3), present: 1, owned: 4},
		"four of ten is above 30 %":                  {gone: leaving(4), present: 6, owned: 10, reasons: []string{"4 of 10 projects and pruneLimit allows 3; `caractrl confirm platform@1a2b3c4`"}},
		"four of fourteen is within 30 %":            {gone: leaving(4), present: 10, owned: 14},
		"a limit of the source's own":                {gone: leaving(6), present: 4, owned: 10, source: func(s *carav1.Source) { s.Spec.PruneLimit = proto.Int32(60) }},
		"a limit of 0 leaves the floor":              {gone: leaving(3), present: 7, owned: 10, source: func(s *carav1.Source) { s.Spec.PruneLimit = proto.Int32(0) }},
		"confirmed for this very revision":           {gone: leaving(9), present: 1, owned: 10, source: confirm(testlaw.Revision)},
		"confirmed by the beginning of the revision": {gone: leaving(9), present: 1, owned: 10, source: confirm("1a2b3c4")},
		"confirmed for another revision":             {gone: leaving(9), present: 1, owned: 10, source: confirm("9a2b3c4d5e6f"), reasons: []string{"pruneLimit"}},
		"confirmation does not release an empty set": {gone: leaving(9), present: 0, owned: 9, source: confirm(testlaw.Revision), reasons: []string{"declares no project"}},
		"every reason is told":                       {gone: leaving(9), present: 0, owned: 9, source: func(s *carav1.Source) { s.Spec.Suspend = true }, reasons: []string{"suspended", "declares no project", "pruneLimit"}},
		"no snapshot at all":                         {gone: leaving(1), present: 5, owned: 6, source: func(s *carav1.Source) { s.Status.Snapshot = nil }, reasons: []string{"first pass"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := PruneInput{Source: testlaw.Source(), Now: testlaw.Now, Gone: tt.gone, Present: tt.present, Held: tt.held, Owned: tt.owned}
			if tt.source != nil {
				tt.source(in.Source)
			}
			v := PruneGate(in)
			if len(v.Delete) != len(tt.gone) {
				t.Errorf("%d candidates, want %d", len(v.Delete), len(tt.gone))
			}
			if v.Allowed != (len(tt.reasons) == 0) || len(v.Reasons) != len(tt.reasons) {
				t.Fatalf("allowed %v for %q, want reasons like %q", v.Allowed, v.Reasons, tt.reasons)
			}
			for i, r := range tt.reasons {
				if !strings.Contains(v.Reasons[i], r) {
					t.Errorf("reason %q does not contain %q", v.Reasons[i], r)
				}
			}
		})
	}
}

func confirm(revision string) func(*carav1.Source) {
	return func(s *carav1.Source) { s.Status.ConfirmedRevision = revision }
}

// TestPruneSpares protects each project with each condition for single projects, while the gate is open.
func TestPruneSpares(t *testing.T) {
	left := testlaw.Claim("old", "a:1", testlaw.Applied, testlaw.Gone)
	mine := testlaw.Project("old", "a:1", "source/platform")
	tests := map[string]struct {
		row  Row
		want string
	}{
		"nothing protects it":                              {row(left, mine), "Delete old Pruned"},
		"it is gone":                                       {row(left, nil), "Forget old Settled"},
		"the owner is another source":                      {row(left, testlaw.Project("old", "a:1", "source/team")), "Forget old Settled"},
		"the owner is a user":                              {row(left, testlaw.Project("old", "a:1", "user/ada")), "Forget old Settled"},
		"nobody owns it":                                   {row(left, testlaw.Project("old", "a:1", "")), "Forget old Settled"},
		"it is being deleted":                              {row(left, testlaw.Project("old", "a:1", "source/platform", testlaw.Terminating(api.ReasonPruned))), "Keep old Deleting"},
		"another source claims it":                         {row(left, mine, rival(testlaw.Claim("old", "a:1", testlaw.From("team", "s2", "old.yaml")))), "Keep old LeftToOther"},
		"another source claims it no longer than it lived": {row(left, mine, rival(testlaw.Claim("old", "a:1", testlaw.From("team", "s2", "old.yaml"), testlaw.Expiring(testlaw.Now)))), "Delete old Pruned"},
		"a person overrode git":                            {row(left, mine, override(api.OverrideSpec)), "Keep old Overridden -> Overridden"},
		"the override was until git's next change":         {row(left, mine, override(api.OverrideSpec, func(o *carav1.Override) { o.UntilHash = left.Spec.Hash })), "Delete old Pruned"},
		"the inventory names another uid":                  {row(left, testlaw.Project("old", "a:1", "source/platform", func(p *carav1.Project) { p.Metadata.Uid = "u-2" })), "Keep old Inventory -> Applied"},
		"the inventory has no uid":                         {row(testlaw.Claim("old", "a:1", testlaw.Gone), mine), "Keep old Inventory -> Applied"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rows := []Row{tt.row}
			for i := range 5 {
				name := fmt.Sprintf("stays-%d", i)
				rows = append(rows, row(testlaw.Claim(name, "a:1", testlaw.Applied), testlaw.Project(name, "a:1", "source/platform")))
			}
			p := Diff(Input{Source: testlaw.Source(), Rows: rows, Now: testlaw.Now})
			if d := cmp.Diff([]string{tt.want}, lines(p)); d != "" {
				t.Errorf("steps (-want +got):\n%s", d)
			}
		})
	}
}

func TestPruneSparesTheInventoryOfANamesake(t *testing.T) {
	r := row(testlaw.Claim("old", "a:1", testlaw.Applied, testlaw.Gone, testlaw.From("platform", "s0", "old.yaml")), testlaw.Project("old", "a:1", "source/platform"))
	v := PruneGate(PruneInput{Source: testlaw.Source(), Now: testlaw.Now, Gone: []Row{r}, Present: 5, Owned: 6})
	if len(v.Delete) != 0 || len(v.Spared) != 1 {
		t.Errorf("verdict %+v, want the project spared", v)
	}
}
