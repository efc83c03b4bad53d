package reconciler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// line is a step as a test compares it.
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

// TestDiff has the rows of the law that Diff decides. Their names are the law's.
func TestDiff(t *testing.T) {
	const me = "source/platform"
	soon := now.Add(time.Hour)
	tests := map[string]struct {
		source *carav1.Source
		rows   []Row
		want   []string
		says   string // what the first step's message contains
		next   time.Time
		ended  []string
	}{
		"nothing changed: zero steps": {
			rows: []Row{row(claim("web", "a:1", applied), project("web", "a:1", me))},
		},
		"renamed or moved file, same project: no write": {
			rows: []Row{row(claim("web", "a:1", applied, func(c *carav1.Claim) { c.Spec.File, c.Spec.Revision = "new/place.yaml", "fffffff" }), project("web", "a:1", me))},
		},
		"a project that git declares and nobody has": {
			rows: []Row{row(claim("web", "a:1"), nil)},
			want: []string{"Create web New -> Applied"},
		},
		"a project that git changed": {
			rows: []Row{row(claim("web", "a:2", func(c *carav1.Claim) { applied(c); c.Status.AppliedHash = "v1:old" }), project("web", "a:1", me))},
			want: []string{"Update web Changed -> Applied"},
		},
		"drift": {
			rows: []Row{row(claim("web", "a:1", applied), project("web", "evil:1", me))},
			want: []string{"Update web Drift -> Applied"},
		},
		"drift of a label": {
			rows: []Row{row(claim("web", "a:1", applied), project("web", "a:1", me, func(p *carav1.Project) { p.Metadata.Labels = map[string]string{"x": "y"} }))},
			want: []string{"Update web Drift -> Applied"},
		},
		"drift is healed while the repository is unreachable": {
			source: source(func(s *carav1.Source) {
				s.Status.Conditions = []*carav1.Condition{{Type: api.CondFetchFailed, Status: api.StatusTrue, Reason: "Unreachable"}}
			}),
			rows: []Row{row(claim("web", "a:1", applied), project("web", "evil:1", me)), row(claim("old", "a:1", applied, gone), project("old", "a:1", me))},
			want: []string{"Update web Drift -> Applied", "Keep old PruneBlocked -> PruneBlocked"},
		},
		"one bad file among many: its projects are kept, the others go on, prune is blocked": {
			source: source(func(s *carav1.Source) {
				s.Status.Snapshot.Complete, s.Status.Snapshot.ErrorCount = false, 1
				s.Status.Snapshot.FileErrors = []*carav1.FileProblem{{File: "bad.yaml", Line: 3, Column: 1, Message: "did not find expected key"}}
			}),
			rows: []Row{
				row(claim("bad", "a:1", applied, held("bad.yaml:3:1: did not find expected key")), project("bad", "a:1", me)),
				row(claim("good", "a:2"), nil),
				row(claim("old", "a:1", applied, gone), project("old", "a:1", me)),
			},
			want: []string{"Create good New -> Applied", "Keep bad Held -> Held", "Keep old PruneBlocked -> PruneBlocked"},
		},
		"same project twice in one source: neither is applied, the existing one stays": {
			rows: []Row{row(claim("web", "a:2", applied, held("declared twice: a.yaml:1 and b.yaml:1")), project("web", "a:1", me))},
			want: []string{"Keep web Held -> Held"}, says: "a.yaml:1 and b.yaml:1",
		},
		"the server refuses one project: it keeps the error until something changes": {
			rows: []Row{
				row(claim("web", "a:1"), nil, func(r *Row) {
					r.Memory = &Memory{Hash: r.Want, Base: r.base(), Failures: 1, Retry: now.Add(time.Minute), State: api.ClaimRefused, Message: "no such secret"}
				}),
				row(claim("other", "a:1"), nil),
			},
			want: []string{"Create other New -> Applied", "Keep web Refused -> Refused"}, next: now.Add(time.Minute),
		},
		"a refused project does not wait longer because the clock was set back": {
			rows: []Row{row(claim("web", "a:1"), nil, func(r *Row) {
				r.Memory = &Memory{Hash: r.Want, Base: r.base(), Failures: 1, Retry: now.Add(24 * time.Hour), State: api.ClaimRefused}
			})},
			want: []string{"Create web New -> Applied"},
		},
		"a refused project is tried again when its manifest changes": {
			rows: []Row{row(claim("web", "a:2"), nil, func(r *Row) {
				r.Memory = &Memory{Hash: "v1:before", Base: r.base(), Failures: 1, Retry: soon, State: api.ClaimRefused}
			})},
			want: []string{"Create web New -> Applied"},
		},
		"a refused project is tried again in time": {
			rows: []Row{row(claim("web", "a:1"), nil, func(r *Row) {
				r.Memory = &Memory{Hash: r.Want, Base: r.base(), Failures: 1, Retry: now, State: api.ClaimRefused}
			})},
			want: []string{"Create web New -> Applied"},
		},
		"project claimed by two sources: the first owner keeps it": {
			rows: []Row{row(claim("web", "a:1"), project("web", "b:1", "source/team"), ownedBy(other("team", "s2")), rival(claim("web", "b:1", of("team", "s2", "apps/web.yaml"))))},
			want: []string{"Keep web Conflict -> Conflict"}, says: "source/team (it is declared there in apps/web.yaml:1)",
		},
		"the owner lets go and the other still claims it: handed over": {
			rows: []Row{row(claim("web", "a:1"), project("web", "a:1", "source/team"), ownedBy(other("team", "s2")))},
			want: []string{"HandOver web LetGo -> Applied"},
		},
		"the owner is being deleted: handed over": {
			rows: []Row{row(claim("web", "a:1"), project("web", "a:1", "source/team"), ownedBy(other("team", "s2", func(s *carav1.Source) { s.Metadata.DeletionTimestamp = timestamppb.New(now) })))},
			want: []string{"HandOver web LetGo -> Applied"},
		},
		"the owner has files that could not be read: it has not let go for certain": {
			rows: []Row{row(claim("web", "a:1"), project("web", "a:1", "source/team"), ownedBy(other("team", "s2", func(s *carav1.Source) { s.Status.Snapshot.Complete = false })))},
			want: []string{"Keep web Conflict -> Conflict"}, says: "could not be read",
		},
		"the owner is suspended: it keeps what it has": {
			rows: []Row{row(claim("web", "a:1"), project("web", "a:1", "source/team"), ownedBy(other("team", "s2", func(s *carav1.Source) { s.Spec.Suspend = true })))},
			want: []string{"Keep web Conflict -> Conflict"}, says: "suspended",
		},
		"project exists, made by hand: adoption required": {
			rows: []Row{row(claim("web", "a:1"), project("web", "a:1", "user/ada"))},
			want: []string{"Keep web AdoptionRequired -> AdoptionRequired"}, says: "user/ada",
		},
		"project exists, made by hand, adopt: Always": {
			source: source(func(s *carav1.Source) { s.Spec.Adopt = api.AdoptAlways }),
			rows:   []Row{row(claim("web", "a:1"), project("web", "a:1", "user/ada"))},
			want:   []string{"Adopt web AdoptAlways -> Applied"},
		},
		"project exists and nobody owns it": {
			rows: []Row{row(claim("web", "a:1"), project("web", "a:1", ""))},
			want: []string{"Adopt web Unowned -> Applied"},
		},
		"project exists and nobody owns it, adopt: Never": {
			source: source(func(s *carav1.Source) { s.Spec.Adopt = "Never" }),
			rows:   []Row{row(claim("web", "a:1"), project("web", "a:1", ""))},
			want:   []string{"Keep web AdoptionRequired -> AdoptionRequired"},
		},
		"manual change: git's version is computed and shown, not applied": {
			rows: []Row{row(claim("web", "a:1", applied), project("web", "hand:1", me), override(api.OverrideSpec, func(o *carav1.Override) { o.Until = timestamppb.New(soon) }))},
			want: []string{"Keep web Overridden -> Overridden"}, says: `user/ada until 2026-05-01T13:00:00Z: incident 7; git would change spec.services[web].image "hand:1" -> "a:1"`, next: soon,
		},
		"when the override ends git wins": {
			rows: []Row{row(claim("web", "a:1", func(c *carav1.Claim) { applied(c); c.Status.State = api.ClaimOverridden }), project("web", "hand:1", me),
				override(api.OverrideSpec, func(o *carav1.Override) { o.Until = timestamppb.New(now) }))},
			want: []string{"Update web OverrideEnded -> Applied"},
		},
		"an override until the next change stands while git says the same": {
			rows: []Row{row(claim("web", "a:1", applied), project("web", "hand:1", me),
				override(api.OverrideSpec, func(o *carav1.Override) { o.UntilHash = claim("web", "a:1").Spec.Hash }))},
			want: []string{"Keep web Overridden -> Overridden"},
		},
		"an override until the next change ends with it, and its record goes": {
			rows: []Row{row(claim("web", "a:2", applied), project("web", "hand:1", me),
				override(api.OverrideSpec, func(o *carav1.Override) { o.UntilHash = claim("web", "a:1").Spec.Hash }))},
			want: []string{"Update web Drift -> Applied"}, ended: []string{"web"},
		},
		"an override until the next change of its own source stands whatever another says": {
			rows: []Row{row(claim("web", "b:1"), project("web", "hand:1", "source/team"), ownedBy(other("team", "s2")),
				rival(claim("web", "a:1", of("team", "s2", "web.yaml"))),
				override(api.OverrideSpec, func(o *carav1.Override) { o.UntilHash = claim("web", "a:1").Spec.Hash }))},
			want: []string{"Keep web Conflict -> Conflict"},
		},
		"a held-down delete stays deleted": {
			rows: []Row{row(claim("web", "a:1", applied), nil, override(api.OverrideDeletion))},
			want: []string{"Keep web Overridden -> Overridden"}, says: "held down by user/ada until it is cleared: incident 7; git would create it",
		},
		"an override of the expiry alone does not hold back git": {
			rows: []Row{row(claim("web", "a:1", applied), project("web", "evil:1", me), override("Expiry"))},
			want: []string{"Update web Drift -> Applied"},
		},
		"expireAt in the past at first sight: not created": {
			rows: []Row{row(claim("pr-1", "a:1", expiring(now)), nil)},
			want: []string{"Keep pr-1 Expired -> Expired"}, says: "has passed",
		},
		"expireAt in the past: not adopted either": {
			rows: []Row{row(claim("pr-1", "a:1", expiring(now)), project("pr-1", "a:1", ""))},
			want: []string{"Keep pr-1 Expired -> Expired"},
		},
		"expires while still in git: the tombstone keeps it from coming back": {
			rows: []Row{row(claim("pr-1", "a:1", expiring(soon)), nil, tombstone(api.ReasonExpired, timestamppb.New(soon)))},
			want: []string{"Keep pr-1 Expired -> Expired"}, says: "expired on",
		},
		"a later expireAt in git clears the tombstone": {
			rows: []Row{row(claim("pr-1", "a:1", expiring(soon.Add(time.Hour))), nil, tombstone(api.ReasonExpired, timestamppb.New(soon)))},
			want: []string{"Create pr-1 New -> Applied"}, next: soon.Add(time.Hour),
		},
		"a tombstone of another end does not matter": {
			rows: []Row{row(claim("pr-1", "a:1", expiring(soon)), nil, tombstone(api.ReasonPruned, timestamppb.New(soon)))},
			want: []string{"Create pr-1 New -> Applied"}, next: soon,
		},
		"removal from git drops the tombstone": {
			rows: []Row{row(claim("pr-1", "a:1", expiring(soon), func(c *carav1.Claim) { c.Metadata.CreationTimestamp = timestamppb.New(now) }), nil, tombstone(api.ReasonExpired, timestamppb.New(soon)))},
			want: []string{"Create pr-1 New -> Applied"}, next: soon,
		},
		"expired and being torn down": {
			rows: []Row{row(claim("pr-1", "a:1", applied, expiring(now)), project("pr-1", "a:1", me, terminating(api.ReasonExpired)))},
			want: []string{"Keep pr-1 Deleting -> Expired"},
		},
		"a project that is being torn down is made anew when it is gone": {
			rows: []Row{row(claim("web", "a:1", applied), project("web", "a:1", me, terminating("Deleted")))},
			want: []string{"Keep web Deleting"},
		},
		"renamed project: create, then prune": {
			rows: []Row{row(claim("zeta", "a:1"), nil), row(claim("alpha", "a:1", applied, gone), project("alpha", "a:1", me))},
			want: []string{"Create zeta New -> Applied", "Delete alpha Pruned"},
		},
		"suspend: no apply, no prune": {
			source: source(func(s *carav1.Source) { s.Spec.Suspend = true }),
			rows:   []Row{row(claim("web", "a:2", applied), project("web", "a:1", me)), row(claim("old", "a:1", applied, gone), project("old", "a:1", me))},
		},
		"same apply ten times within a minute: Stalled with the field diff": {
			rows: []Row{row(claim("web", "a:1", applied), project("web", "evil:1", me), func(r *Row) {
				r.Memory = &Memory{Hash: r.Want}
				for i := range 10 {
					r.Memory.Applied = append(r.Memory.Applied, now.Add(time.Duration(i-10)*time.Second))
				}
			})},
			want: []string{"Keep web Stalled -> Stalled"}, says: `spec.services[web].image "evil:1" -> "a:1"`,
		},
		"ten applies over a longer time are no fight": {
			rows: []Row{row(claim("web", "a:1", applied), project("web", "evil:1", me), func(r *Row) {
				r.Memory = &Memory{Hash: r.Want}
				for i := range 10 {
					r.Memory.Applied = append(r.Memory.Applied, now.Add(time.Duration(i-10)*7*time.Second))
				}
			})},
			want: []string{"Update web Drift -> Applied"},
		},
		"stalled stays so after a restart": {
			rows: []Row{row(claim("web", "a:1", func(c *carav1.Claim) { applied(c); c.Status.State = api.ClaimStalled }), project("web", "evil:1", me))},
			want: []string{"Keep web Stalled -> Stalled"},
		},
		"stalled ends when the manifest changes": {
			rows: []Row{row(claim("web", "a:2", func(c *carav1.Claim) {
				applied(c)
				c.Status.State, c.Status.AppliedHash = api.ClaimStalled, "v1:before"
			}), project("web", "evil:1", me))},
			want: []string{"Update web Changed -> Applied"},
		},
		"a claim of an earlier source of the same name has no say": {
			rows: []Row{row(claim("web", "a:2", of("platform", "s0", "web.yaml")), project("web", "a:1", me))},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := Input{Source: tt.source, Rows: tt.rows, Now: now}
			if in.Source == nil {
				in.Source = source()
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
		"drift":      row(claim("web", "a:1", applied), project("web", "evil:1", "source/platform")),
		"overridden": row(claim("web", "a:1", applied), project("web", "evil:1", "source/platform"), override(api.OverrideSpec)),
	} {
		t.Run(name, func(t *testing.T) {
			p := Diff(Input{Source: source(), Rows: []Row{r}, Now: now})
			want := `spec.services[web].image "evil:1" -> "a:1"`
			if got := diffText(p.Steps[0].Diff); got != want {
				t.Errorf("diff %s, want %s", got, want)
			}
		})
	}
}

// TestSourceDeleted is the law's row about a source that is deleted.
func TestSourceDeleted(t *testing.T) {
	const me = "source/platform"
	deleted := func(onDelete string) *carav1.Source {
		return source(func(s *carav1.Source) {
			s.Metadata.DeletionTimestamp, s.Spec.OnDelete = timestamppb.New(now), onDelete
		})
	}
	claimedByTeam := rival(claim("shared", "a:1", of("team", "s2", "shared.yaml")))
	tests := map[string]struct {
		source *carav1.Source
		rows   []Row
		want   []string
		remove bool
	}{
		"Orphan lets go at once": {
			source: deleted(""), remove: true,
			rows: []Row{row(claim("web", "a:1", applied), project("web", "a:1", me))},
		},
		"Delete deletes what it owns, also what it has no word on": {
			source: deleted(api.OnDeleteDelete),
			rows:   []Row{row(claim("web", "a:1", applied), project("web", "a:1", me)), row(nil, project("lost", "a:1", me)), row(claim("mine", "a:1"), project("mine", "a:1", "user/ada"))},
			want:   []string{"Delete lost SourceDeleted", "Delete web SourceDeleted"},
		},
		"Delete waits until all is gone": {
			source: deleted(api.OnDeleteDelete),
			rows:   []Row{row(claim("web", "a:1", applied), project("web", "a:1", me, terminating(api.ReasonSourceDeleted)))},
			want:   []string{"Keep web Deleting"},
		},
		"Delete ends with the record": {
			source: deleted(api.OnDeleteDelete), remove: true,
			rows: []Row{row(claim("web", "a:1", applied), nil)},
		},
		"Delete leaves what another source claims, for it to take over": {
			source: deleted(api.OnDeleteDelete),
			rows:   []Row{row(claim("shared", "a:1", applied), project("shared", "a:1", me), claimedByTeam)},
			want:   []string{"Keep shared LeftToOther"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := Diff(Input{Source: tt.source, Rows: tt.rows, Now: now})
			if d := cmp.Diff(tt.want, lines(p)); d != "" {
				t.Errorf("steps (-want +got):\n%s", d)
			}
			if p.Remove != tt.remove {
				t.Errorf("remove is %v, want %v", p.Remove, tt.remove)
			}
		})
	}
}
