package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testlaw"
)

// line formats a step for comparison.
func line(s Step) string {
	text := fmt.Sprintf("%s %s %s", s.Action, s.Project, s.Reason)
	if s.State != "" {
		text += " -> " + s.State
	}
	return text
}

func lines(p Plan) []string {
	var all []string
	for _, s := range p.Steps {
		all = append(all, line(s))
	}
	return all
}

// TestDiff has the rules that Diff decides, with the names of the rules.
func TestDiff(t *testing.T) {
	const me = "source/platform"
	soon := testlaw.Now.Add(time.Hour)
	tests := map[string]struct {
		source *carav1.Source
		rows   []Row
		want   []string
		says   string // what the first step's message contains
		next   time.Time
		ended  []string
	}{
		"nothing changed: zero steps": {
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "a:1", me))},
		},
		"renamed or moved file, same project: no write": {
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied, func(c *carav1.Claim) { c.Spec.File, c.Spec.Revision = "new/place.yaml", "fffffff" }), testlaw.Project("web", "a:1", me))},
		},
		"a project that git declares and nobody has": {
			rows: []Row{row(testlaw.Claim("web", "a:1"), nil)},
			want: []string{"Create web New -> Applied"},
		},
		"a project that git changed": {
			rows: []Row{row(testlaw.Claim("web", "a:2", func(c *carav1.Claim) { testlaw.Applied(c); c.Status.AppliedHash = "v1:old" }), testlaw.Project("web", "a:1", me))},
			want: []string{"Update web Changed -> Applied"},
		},
		"drift": {
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "evil:1", me))},
			want: []string{"Update web Drift -> Applied"},
		},
		"drift of a label": {
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "a:1", me, func(p *carav1.Project) { p.Metadata.Labels = map[string]string{"x": "y"} }))},
			want: []string{"Update web Drift -> Applied"},
		},
		"drift is healed while the repository is unreachable": {
			source: testlaw.Source(func(s *carav1.Source) {
				s.Status.Conditions = []*carav1.Condition{{Type: api.CondFetchFailed, Status: api.StatusTrue, Reason: "Unreachable"}}
			}),
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "evil:1", me)), row(testlaw.Claim("old", "a:1", testlaw.Applied, testlaw.Gone), testlaw.Project("old", "a:1", me))},
			want: []string{"Update web Drift -> Applied", "Keep old PruneBlocked -> PruneBlocked"},
		},
		"one bad file among many: its projects are kept, the others go on, prune is blocked": {
			source: testlaw.Source(func(s *carav1.Source) {
				s.Status.Snapshot.Complete, s.Status.Snapshot.ErrorCount = false, 1
				s.Status.Snapshot.FileErrors = []*carav1.FileProblem{{File: "bad.yaml", Line: 3, Column: 1, Message: "did not find expected key"}}
			}),
			rows: []Row{
				row(testlaw.Claim("bad", "a:1", testlaw.Applied, testlaw.Held("bad.yaml:3:1: did not find expected key")), testlaw.Project("bad", "a:1", me)),
				row(testlaw.Claim("good", "a:2"), nil),
				row(testlaw.Claim("old", "a:1", testlaw.Applied, testlaw.Gone), testlaw.Project("old", "a:1", me)),
			},
			want: []string{"Create good New -> Applied", "Keep bad Held -> Held", "Keep old PruneBlocked -> PruneBlocked"},
		},
		"same project twice in one source: neither is applied, the existing one stays": {
			rows: []Row{row(testlaw.Claim("web", "a:2", testlaw.Applied, testlaw.Held("declared twice: a.yaml:1 and b.yaml:1")), testlaw.Project("web", "a:1", me))},
			want: []string{"Keep web Held -> Held"}, says: "a.yaml:1 and b.yaml:1",
		},
		"the server refuses one project: it keeps the error until something changes": {
			rows: []Row{
				row(testlaw.Claim("web", "a:1"), nil, func(r *Row) {
					r.Memory = &Memory{Hash: r.Want, Base: r.base(), Failures: 1, Retry: testlaw.Now.Add(time.Minute), State: api.ClaimRefused, Message: "no such secret"}
				}),
				row(testlaw.Claim("other", "a:1"), nil),
			},
			want: []string{"Create other New -> Applied", "Keep web Refused -> Refused"}, next: testlaw.Now.Add(time.Minute),
		},
		"a refused project does not wait longer because the clock was set back": {
			rows: []Row{row(testlaw.Claim("web", "a:1"), nil, func(r *Row) {
				r.Memory = &Memory{Hash: r.Want, Base: r.base(), Failures: 1, Retry: testlaw.Now.Add(24 * time.Hour), State: api.ClaimRefused}
			})},
			want: []string{"Create web New -> Applied"},
		},
		"a refused project is tried again when its manifest changes": {
			rows: []Row{row(testlaw.Claim("web", "a:2"), nil, func(r *Row) {
				r.Memory = &Memory{Hash: "v1:before", Base: r.base(), Failures: 1, Retry: soon, State: api.ClaimRefused}
			})},
			want: []string{"Create web New -> Applied"},
		},
		"a refused project is tried again in time": {
			rows: []Row{row(testlaw.Claim("web", "a:1"), nil, func(r *Row) {
				r.Memory = &Memory{Hash: r.Want, Base: r.base(), Failures: 1, Retry: testlaw.Now, State: api.ClaimRefused}
			})},
			want: []string{"Create web New -> Applied"},
		},
		"project claimed by two sources: the first owner keeps it": {
			rows: []Row{row(testlaw.Claim("web", "a:1"), testlaw.Project("web", "b:1", "source/team"), ownedBy(testlaw.Other("team", "s2")), rival(testlaw.Claim("web", "b:1", testlaw.From("team", "s2", "apps/web.yaml"))))},
			want: []string{"Keep web Conflict -> Conflict"}, says: "source/team (it is declared there in apps/web.yaml:1)",
		},
		"the owner lets go and the other still claims it: handed over": {
			rows: []Row{row(testlaw.Claim("web", "a:1"), testlaw.Project("web", "a:1", "source/team"), ownedBy(testlaw.Other("team", "s2")))},
			want: []string{"HandOver web LetGo -> Applied"},
		},
		"the owner is being deleted: handed over": {
			rows: []Row{row(testlaw.Claim("web", "a:1"), testlaw.Project("web", "a:1", "source/team"), ownedBy(testlaw.Other("team", "s2", func(s *carav1.Source) { s.Metadata.DeletionTimestamp = timestamppb.New(testlaw.Now) })))},
			want: []string{"HandOver web LetGo -> Applied"},
		},
		"the owner has files that could not be read: it has not let go for certain": {
			rows: []Row{row(testlaw.Claim("web", "a:1"), testlaw.Project("web", "a:1", "source/team"), ownedBy(testlaw.Other("team", "s2", func(s *carav1.Source) { s.Status.Snapshot.Complete = false })))},
			want: []string{"Keep web Conflict -> Conflict"}, says: "could not be read",
		},
		"the owner is suspended: it keeps what it has": {
			rows: []Row{row(testlaw.Claim("web", "a:1"), testlaw.Project("web", "a:1", "source/team"), ownedBy(testlaw.Other("team", "s2", func(s *carav1.Source) { s.Spec.Suspend = true })))},
			want: []string{"Keep web Conflict -> Conflict"}, says: "suspended",
		},
		"project exists, made by hand: adoption required": {
			rows: []Row{row(testlaw.Claim("web", "a:1"), testlaw.Project("web", "a:1", "user/ada"))},
			want: []string{"Keep web AdoptionRequired -> AdoptionRequired"}, says: "user/ada",
		},
		"project exists, made by hand, adopt: Always": {
			source: testlaw.Source(func(s *carav1.Source) { s.Spec.Adopt = api.AdoptAlways }),
			rows:   []Row{row(testlaw.Claim("web", "a:1"), testlaw.Project("web", "a:1", "user/ada"))},
			want:   []string{"Adopt web AdoptAlways -> Applied"},
		},
		"project exists and nobody owns it": {
			rows: []Row{row(testlaw.Claim("web", "a:1"), testlaw.Project("web", "a:1", ""))},
			want: []string{"Adopt web Unowned -> Applied"},
		},
		"project exists and nobody owns it, adopt: Never": {
			source: testlaw.Source(func(s *carav1.Source) { s.Spec.Adopt = "Never" }),
			rows:   []Row{row(testlaw.Claim("web", "a:1"), testlaw.Project("web", "a:1", ""))},
			want:   []string{"Keep web AdoptionRequired -> AdoptionRequired"},
		},
		"manual change: git's version is computed and shown, not applied": {
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "hand:1", me), override(api.OverrideSpec, func(o *carav1.Override) { o.Until = timestamppb.New(soon) }))},
			want: []string{"Keep web Overridden -> Overridden"}, says: `user/ada until 2026-05-01T13:00:00Z: incident 7; git would change spec.services[web].image "hand:1" -> "a:1"`, next: soon,
		},
		"when the override ends git wins": {
			rows: []Row{row(testlaw.Claim("web", "a:1", func(c *carav1.Claim) { testlaw.Applied(c); c.Status.State = api.ClaimOverridden }), testlaw.Project("web", "hand:1", me),
				override(api.OverrideSpec, func(o *carav1.Override) { o.Until = timestamppb.New(testlaw.Now) }))},
			want: []string{"Update web OverrideEnded -> Applied"},
		},
		"an override until the next change stands while git says the same": {
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "hand:1", me),
				override(api.OverrideSpec, func(o *carav1.Override) { o.UntilHash = testlaw.Claim("web", "a:1").Spec.Hash }))},
			want: []string{"Keep web Overridden -> Overridden"},
		},
		"an override until the next change ends with it, and its record goes": {
			rows: []Row{row(testlaw.Claim("web", "a:2", testlaw.Applied), testlaw.Project("web", "hand:1", me),
				override(api.OverrideSpec, func(o *carav1.Override) { o.UntilHash = testlaw.Claim("web", "a:1").Spec.Hash }))},
			want: []string{"Update web Drift -> Applied"}, ended: []string{"web"},
		},
		"an override until the next change of its own source stands whatever another says": {
			rows: []Row{row(testlaw.Claim("web", "b:1"), testlaw.Project("web", "hand:1", "source/team"), ownedBy(testlaw.Other("team", "s2")),
				rival(testlaw.Claim("web", "a:1", testlaw.From("team", "s2", "web.yaml"))),
				override(api.OverrideSpec, func(o *carav1.Override) { o.UntilHash = testlaw.Claim("web", "a:1").Spec.Hash }))},
			want: []string{"Keep web Conflict -> Conflict"},
		},
		"a held-down delete stays deleted": {
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), nil, override(api.OverrideDeletion))},
			want: []string{"Keep web Overridden -> Overridden"}, says: "held down by user/ada until it is cleared: incident 7; git would create it",
		},
		"an override of the expiry alone does not hold back git": {
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "evil:1", me), override("Expiry"))},
			want: []string{"Update web Drift -> Applied"},
		},
		"expireAt in the past at first sight: not created": {
			rows: []Row{row(testlaw.Claim("pr-1", "a:1", testlaw.Expiring(testlaw.Now)), nil)},
			want: []string{"Keep pr-1 Expired -> Expired"}, says: "has passed",
		},
		"expireAt in the past: not adopted either": {
			rows: []Row{row(testlaw.Claim("pr-1", "a:1", testlaw.Expiring(testlaw.Now)), testlaw.Project("pr-1", "a:1", ""))},
			want: []string{"Keep pr-1 Expired -> Expired"},
		},
		"expires while still in git: the tombstone keeps it from coming back": {
			rows: []Row{row(testlaw.Claim("pr-1", "a:1", testlaw.Expiring(soon)), nil, tombstone(api.ReasonExpired, timestamppb.New(soon)))},
			want: []string{"Keep pr-1 Expired -> Expired"}, says: "expired on",
		},
		"a later expireAt in git clears the tombstone": {
			rows: []Row{row(testlaw.Claim("pr-1", "a:1", testlaw.Expiring(soon.Add(time.Hour))), nil, tombstone(api.ReasonExpired, timestamppb.New(soon)))},
			want: []string{"Create pr-1 New -> Applied"}, next: soon.Add(time.Hour),
		},
		"a tombstone of another end does not matter": {
			rows: []Row{row(testlaw.Claim("pr-1", "a:1", testlaw.Expiring(soon)), nil, tombstone(api.ReasonPruned, timestamppb.New(soon)))},
			want: []string{"Create pr-1 New -> Applied"}, next: soon,
		},
		"removal from git drops the tombstone": {
			rows: []Row{row(testlaw.Claim("pr-1", "a:1", testlaw.Expiring(soon), func(c *carav1.Claim) { c.Metadata.CreationTimestamp = timestamppb.New(testlaw.Now) }), nil, tombstone(api.ReasonExpired, timestamppb.New(soon)))},
			want: []string{"Create pr-1 New -> Applied"}, next: soon,
		},
		"expired and being torn down": {
			rows: []Row{row(testlaw.Claim("pr-1", "a:1", testlaw.Applied, testlaw.Expiring(testlaw.Now)), testlaw.Project("pr-1", "a:1", me, testlaw.Terminating(api.ReasonExpired)))},
			want: []string{"Keep pr-1 Deleting -> Expired"},
		},
		"a project that is being torn down is made anew when it is gone": {
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "a:1", me, testlaw.Terminating("Deleted")))},
			want: []string{"Keep web Deleting"},
		},
		"renamed project: create, then prune": {
			rows: []Row{row(testlaw.Claim("zeta", "a:1"), nil), row(testlaw.Claim("alpha", "a:1", testlaw.Applied, testlaw.Gone), testlaw.Project("alpha", "a:1", me))},
			want: []string{"Create zeta New -> Applied", "Delete alpha Pruned"},
		},
		"suspend: no apply, no prune": {
			source: testlaw.Source(func(s *carav1.Source) { s.Spec.Suspend = true }),
			rows:   []Row{row(testlaw.Claim("web", "a:2", testlaw.Applied), testlaw.Project("web", "a:1", me)), row(testlaw.Claim("old", "a:1", testlaw.Applied, testlaw.Gone), testlaw.Project("old", "a:1", me))},
		},
		"same apply ten times within a minute: Stalled with the field diff": {
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "evil:1", me), func(r *Row) {
				r.Memory = &Memory{Hash: r.Want}
				for i := range 10 {
					r.Memory.Applied = append(r.Memory.Applied, testlaw.Now.Add(time.Duration(i-10)*time.Second))
				}
			})},
			want: []string{"Keep web Stalled -> Stalled"}, says: `spec.services[web].image "evil:1" -> "a:1"`,
		},
		"ten applies over a longer time are no fight": {
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "evil:1", me), func(r *Row) {
				r.Memory = &Memory{Hash: r.Want}
				for i := range 10 {
					r.Memory.Applied = append(r.Memory.Applied, testlaw.Now.Add(time.Duration(i-10)*7*time.Second))
				}
			})},
			want: []string{"Update web Drift -> Applied"},
		},
		"stalled stays so after a restart": {
			rows: []Row{row(testlaw.Claim("web", "a:1", func(c *carav1.Claim) { testlaw.Applied(c); c.Status.State = api.ClaimStalled }), testlaw.Project("web", "evil:1", me))},
			want: []string{"Keep web Stalled -> Stalled"},
		},
		"stalled ends when the manifest changes": {
			rows: []Row{row(testlaw.Claim("web", "a:2", func(c *carav1.Claim) {
				testlaw.Applied(c)
				c.Status.State, c.Status.AppliedHash = api.ClaimStalled, "v1:before"
			}), testlaw.Project("web", "evil:1", me))},
			want: []string{"Update web Changed -> Applied"},
		},
		"a claim of an earlier source of the same name has no say": {
			rows: []Row{row(testlaw.Claim("web", "a:2", testlaw.From("platform", "s0", "web.yaml")), testlaw.Project("web", "a:1", me))},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := Input{Source: tt.source, Rows: tt.rows, Now: testlaw.Now}
			if in.Source == nil {
				in.Source = testlaw.Source()
			}
			p := Diff(in)
			if d := cmp.Diff(tt.want, lines(p)); d != "" {
				t.Errorf("steps (-want +got):\n%s", d)
			}
			if tt.says != "" && !strings.Contains(p.Steps[0].Message, tt.says) {
				t.Errorf("message %q does not contain %q", p.Steps[0].Message, tt.says)
			}
			if !p.Next.Equal(tt.next) {
				t.Errorf("next look at %v, want %v", p.Next, tt.next)
			}
			if d := cmp.Diff(tt.ended, p.Ended); d != "" {
				t.Errorf("ended overrides (-want +got):\n%s", d)
			}
		})
	}
}

func TestDiffShowsFields(t *testing.T) {
	for name, r := range map[string]Row{
		"drift":      row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "evil:1", "source/platform")),
		"overridden": row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "evil:1", "source/platform"), override(api.OverrideSpec)),
	} {
		t.Run(name, func(t *testing.T) {
			p := Diff(Input{Source: testlaw.Source(), Rows: []Row{r}, Now: testlaw.Now})
			want := `spec.services[web].image "evil:1" -> "a:1"`
			if got := DiffText(p.Steps[0].Diff); got != want {
				t.Errorf("diff %s, want %s", got, want)
			}
		})
	}
}

// TestSourceDeleted tests the rule for a deleted source.
func TestSourceDeleted(t *testing.T) {
	const me = "source/platform"
	deleted := func(onDelete string) *carav1.Source {
		return testlaw.Source(func(s *carav1.Source) {
			s.Metadata.DeletionTimestamp, s.Spec.OnDelete = timestamppb.New(testlaw.Now), onDelete
		})
	}
	claimedByTeam := rival(testlaw.Claim("shared", "a:1", testlaw.From("team", "s2", "shared.yaml")))
	tests := map[string]struct {
		source *carav1.Source
		rows   []Row
		want   []string
		remove bool
	}{
		"Orphan lets go at once": {
			source: deleted(""), remove: true,
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "a:1", me))},
		},
		"Delete deletes what it owns, also what it has no word on": {
			source: deleted(api.OnDeleteDelete),
			rows:   []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "a:1", me)), row(nil, testlaw.Project("lost", "a:1", me)), row(testlaw.Claim("mine", "a:1"), testlaw.Project("mine", "a:1", "user/ada"))},
			want:   []string{"Delete lost SourceDeleted", "Delete web SourceDeleted"},
		},
		"Delete waits until all is gone": {
			source: deleted(api.OnDeleteDelete),
			rows:   []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "a:1", me, testlaw.Terminating(api.ReasonSourceDeleted)))},
			want:   []string{"Keep web Deleting"},
		},
		"Delete ends with the record": {
			source: deleted(api.OnDeleteDelete), remove: true,
			rows: []Row{row(testlaw.Claim("web", "a:1", testlaw.Applied), nil)},
		},
		"Delete leaves what another source claims, for it to take over": {
			source: deleted(api.OnDeleteDelete),
			rows:   []Row{row(testlaw.Claim("shared", "a:1", testlaw.Applied), testlaw.Project("shared", "a:1", me), claimedByTeam)},
			want:   []string{"Keep shared LeftToOther"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := Diff(Input{Source: tt.source, Rows: tt.rows, Now: testlaw.Now})
			if d := cmp.Diff(tt.want, lines(p)); d != "" {
				t.Errorf("steps (-want +got):\n%s", d)
			}
			if p.Remove != tt.remove {
				t.Errorf("remove is %v, want %v", p.Remove, tt.remove)
			}
		})
	}
}

// TestFirstPass tests an inventory without an earlier reconciliation, as after a partial restore: nothing is deleted.
func TestFirstPass(t *testing.T) {
	in := Input{Source: testlaw.Source(func(s *carav1.Source) { s.Status.AttemptedRevision = "" }), Now: testlaw.Now, Rows: []Row{
		row(testlaw.Claim("web", "a:1", testlaw.Applied), testlaw.Project("web", "a:1", "source/platform")),
		row(testlaw.Claim("old", "a:1", testlaw.Applied, testlaw.Gone), testlaw.Project("old", "a:1", "source/platform")),
	}}
	if p := Diff(in); p.Prune.Allowed || !strings.Contains(strings.Join(p.Prune.Reasons, ""), "first pass") {
		t.Errorf("verdict %+v", p.Prune)
	}
}
