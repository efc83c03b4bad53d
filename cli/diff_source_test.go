package cli

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestDifferences(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	spec := func(image string) *carav1.ProjectSpec {
		return &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: image}}}
	}
	live := func(owner, image string) *carav1.Project {
		return &carav1.Project{Metadata: &carav1.ObjectMeta{Name: "web", Owner: owner}, Spec: spec(image)}
	}
	dying := live("source/a", "web:1")
	dying.Status = &carav1.ProjectStatus{Phase: "Terminating"}
	expiring := proto.CloneOf(dying)
	expiring.Status.DeletionReason = "Expired"
	over := func(change func(*carav1.Override)) *carav1.Override {
		o := &carav1.Override{Metadata: &carav1.ObjectMeta{Name: "web"}, Scope: "Spec", Actor: "user/ada", Reason: "it leaks"}
		change(o)
		return o
	}
	always := func(*carav1.Override) {}
	tests := []struct {
		name     string
		source   *carav1.SourceSpec
		gone     bool // from the source
		uid      string
		held     string
		status   *carav1.ClaimStatus
		live     *carav1.Project
		override *carav1.Override
		want     string
		unknown  bool
	}{
		{name: "as declared", live: live("source/a", "web:1")},
		{name: "new", want: "would be created"},
		{name: "refused", status: &carav1.ClaimStatus{State: "Refused", Message: "the host is taken"}, want: "would be created, and is not (Refused): the host is taken"},
		{name: "changed", live: live("source/a", "web:0"), want: "would be configured"},
		{name: "broken file", held: "a.yaml:1: no", live: live("source/a", "web:0"), want: "is kept as it is: a.yaml:1: no", unknown: true},
		{name: "of another source", live: live("source/b", "web:1"), want: "stays as it is, it belongs to source/b"},
		{name: "of nobody", live: live("", "web:1"), want: "would be adopted, it belongs to nobody"},
		{name: "of nobody, never adopted", source: &carav1.SourceSpec{Adopt: "Never"}, live: live("", "web:1"), want: "stays as it is, it belongs to nobody: caractrl adopt web gives it to the source"},
		{name: "of a person", live: live("user/bob", "web:1"), want: "stays as it is, it belongs to user/bob: caractrl adopt web gives it to the source"},
		{name: "of a person, adopted", source: &carav1.SourceSpec{Adopt: "Always"}, live: live("user/bob", "web:1"), want: "would be adopted, it belongs to user/bob"},
		{name: "being deleted", live: dying, want: "is being deleted: git would create it again"},
		{name: "expired", live: expiring},
		{name: "has expired", status: &carav1.ClaimStatus{State: "Expired"}},
		{name: "overridden", live: live("source/a", "web:0"), override: over(always), want: "is overridden by user/ada until it is cleared: it leaks; git would change it"},
		{name: "overridden, and the same", live: live("source/a", "web:1"), override: over(always)},
		{name: "extended", live: live("source/a", "web:0"), override: over(func(o *carav1.Override) { o.Scope = "Expiry" }), want: "would be configured"},
		{name: "override over", live: live("source/a", "web:0"), override: over(func(o *carav1.Override) { o.Until = timestamppb.New(now) }), want: "would be configured"},
		{name: "override over by a commit", live: live("source/a", "web:0"), override: over(func(o *carav1.Override) { o.UntilHash = "v1:00" }), want: "would be configured"},
		{name: "held down", override: over(func(o *carav1.Override) { o.Scope = "Deletion" }), want: "is held down by user/ada until it is cleared: it leaks; git would create it"},
		{name: "gone from git", gone: true, live: live("source/a", "web:1"), want: "would be pruned"},
		{name: "gone from git and here", gone: true},
		{name: "gone from git, of another", gone: true, live: live("source/b", "web:1")},
		{name: "gone from git, overridden", gone: true, live: live("source/a", "web:1"), override: over(always), want: "is overridden by user/ada until it is cleared: it leaks; git would delete it"},
		{name: "of an earlier source", gone: true, uid: "0", live: live("source/a", "web:1"), want: "is kept: an earlier source of this name declared it"},
		{name: "prune is off", source: &carav1.SourceSpec{Prune: new(false)}, gone: true, live: live("source/a", "web:1"), want: "is kept, it left the source: prune is off"},
		{name: "prune is blocked", gone: true, status: &carav1.ClaimStatus{State: "PruneBlocked", Message: "too many"}, live: live("source/a", "web:1"), want: "would be pruned, and is not: the prune is blocked"},
		{name: "left to another", gone: true, status: &carav1.ClaimStatus{Message: "it is left to source/b"}, live: live("source/a", "web:1"), want: "is kept, it left the source: it is left to source/b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &declaration{
				source: &carav1.Source{Metadata: &carav1.ObjectMeta{Name: "a"}, Spec: tt.source},
				claims: []*carav1.Claim{{Status: tt.status, Spec: &carav1.ClaimSpec{
					Project: live("", "web:1"), Present: !tt.gone, Held: tt.held, Hash: "v1:11", SourceUid: tt.uid,
				}}},
				live: map[string]*carav1.Project{}, overrides: map[string]*carav1.Override{},
			}
			if tt.live != nil {
				d.live["web"] = tt.live
			}
			if tt.override != nil {
				d.overrides["web"] = tt.override
			}
			got := d.differences(now)
			if tt.want == "" {
				if len(got) > 0 {
					t.Errorf("got %+v, want none", got)
				}
				return
			}
			if len(got) != 1 || got[0].project != "web" || got[0].what != tt.want || got[0].unknown != tt.unknown {
				t.Errorf("got %+v, want %q", got, tt.want)
			}
		})
	}
}

func TestWhatASourceNeverDeclaredIsShown(t *testing.T) {
	d := &declaration{
		source: &carav1.Source{Metadata: &carav1.ObjectMeta{Name: "a"}},
		live:   map[string]*carav1.Project{"web": {Metadata: &carav1.ObjectMeta{Name: "web", Owner: "source/a"}}},
	}
	if got := d.differences(time.Now()); len(got) != 1 || got[0].project != "web" {
		t.Errorf("got %+v", got)
	}
}
