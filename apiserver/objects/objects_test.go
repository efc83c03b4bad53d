package objects

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// A report counts only for the assignment that it is about, also from the node that has the project.
func TestReportOfAnotherEpochIsRefused(t *testing.T) {
	p := &carav1.Project{
		Metadata: &carav1.ObjectMeta{Name: "p", Uid: "u", Generation: 3},
		Status:   &carav1.ProjectStatus{NodeRef: "n1", Epoch: 5},
	}
	for epoch, refused := range map[int32]bool{4: true, 5: false, 6: true} {
		req := &carav1.UpdateProjectStatusRequest{Name: "p", Uid: "u", ObservedGeneration: 3}
		req.Epoch = epoch
		err := rules.MayReport(identity.Actor{Name: "node/n1", Role: api.RoleNode}, p, req)
		if refused {
			testproblem.Want(t, err, codes.Aborted, api.TitleStaleEpoch)
		} else if err != nil {
			t.Errorf("epoch %d: %v", epoch, err)
		}
	}
}

// Apply holds a token's name prefix against every kind that the token may write.
func TestApplyHoldsTheNamePrefix(t *testing.T) {
	s := Service{MayCall: func(identity.Actor, string) error { return nil }, appliers: appliers()}
	ctx := identity.WithActor(t.Context(), identity.Actor{Name: "user/ci", Role: api.RoleDeployer, NamePrefixes: []string{"pr-"}})
	secret := func(name string) *carav1.Secret {
		return &carav1.Secret{
			ApiVersion: api.APIVersion, Kind: api.KindSecret, Type: "opaque", Metadata: &carav1.ObjectMeta{Name: name},
			StringData: map[string]string{"k": "v"},
		}
	}
	testproblem.Want(t, s.mayApply(ctx, secret("prod-db"), rules.ApplyTerms{}), codes.PermissionDenied, api.TitleForbidden)
	testproblem.Want(t, s.mayApply(ctx, &carav1.Project{
		ApiVersion: api.APIVersion, Kind: api.KindProject, Metadata: &carav1.ObjectMeta{Name: "prod"},
		Spec: &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: "nginx:1"}}},
	}, rules.ApplyTerms{}), codes.PermissionDenied, api.TitleForbidden)
	if err := s.mayApply(ctx, secret("pr-db"), rules.ApplyTerms{}); api.Code(err) == codes.PermissionDenied {
		t.Errorf("within the prefix: %v", err)
	}
}

// A source takes a project only from the owners that the call names.
func TestHandOverNamesItsOwners(t *testing.T) {
	p := &carav1.Project{Metadata: &carav1.ObjectMeta{Name: "p", Owner: "source/a"}}
	for _, tt := range []struct {
		name     string
		owner    string
		handOver []string
		refused  bool
	}{
		{"its own", "source/a", nil, false},
		{"nobody lets go", "source/b", nil, true},
		{"another lets go", "source/b", []string{"source/c"}, true},
		{"the owner lets go", "source/b", []string{"source/c", "source/a"}, false},
	} {
		if err := rules.MayTake(p, tt.owner, api.AdoptAlways, tt.handOver); (err != nil) != tt.refused {
			t.Errorf("%s: %v, refused should be %v", tt.name, err, tt.refused)
		}
	}
}

// A new override lasts as long as it was asked for.
func TestOverrideTerm(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	change := &state.Tx{Now: now}
	end, _, err := rules.OverrideEnd(change, "p", "s", &carav1.OverrideTerms{Reason: "why", For: durationpb.New(time.Hour)})
	if err != nil || !end.AsTime().Equal(now.Add(time.Hour)) {
		t.Errorf("for an hour ends at %v (%v), want in an hour", end.AsTime(), err)
	}
	for name, terms := range map[string]*carav1.OverrideTerms{
		"negative": {Reason: "why", For: durationpb.New(-time.Hour)},
		"past":     {Reason: "why", Until: timestamppb.New(now.Add(-time.Hour))},
	} {
		if _, _, err := rules.OverrideEnd(change, "p", "s", terms); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWatchFiltersOneKind(t *testing.T) {
	running := func(p *carav1.Project) bool { return p.GetStatus().GetPhase() == api.PhaseRunning }
	p := func(phase string) *carav1.Project {
		return &carav1.Project{Metadata: &carav1.ObjectMeta{Name: "x"}, Status: &carav1.ProjectStatus{Phase: phase}}
	}
	tests := []struct {
		name string
		ch   state.Change
		want string
	}{
		{"new and matches", state.Change{New: p("Running"), Created: true}, api.WatchAdded},
		{"new and does not", state.Change{New: p("Pending"), Created: true}, ""},
		{"comes to match", state.Change{Old: p("Pending"), New: p("Running")}, api.WatchAdded},
		{"goes on matching", state.Change{Old: p("Running"), New: p("Running")}, api.WatchModified},
		{"matches no longer", state.Change{Old: p("Running"), New: p("Failed")}, api.WatchDeleted},
		{"never matched", state.Change{Old: p("Pending"), New: p("Failed")}, ""},
		{"deleted", state.Change{Old: p("Running")}, api.WatchDeleted},
		{"deleted, never matched", state.Change{Old: p("Pending")}, ""},
		{"from the log, matches", state.Change{New: p("Running")}, api.WatchModified},
		{"from the log, does not", state.Change{New: p("Failed")}, api.WatchDeleted},
		{"from the log, deleted", state.Change{}, api.WatchDeleted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.ch.Kind, tt.ch.Name = api.KindProject, "x"
			if got, _ := filtered(&tt.ch, running); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAnOldJoinTokenEndsToo(t *testing.T) {
	born := time.Unix(1_000_000, 0)
	old := &carav1.Token{Metadata: &carav1.ObjectMeta{CreationTimestamp: timestamppb.New(born)}, Role: api.RoleJoin}
	if got := JoinEnd(old).AsTime(); !got.Equal(born.Add(24 * time.Hour)) {
		t.Errorf("ends at %v", got)
	}
	old.Role = api.RoleAdmin
	if JoinEnd(old) != nil {
		t.Error("an administrator's token ends")
	}
}

// The tokens of requests sort after the random ones of an earlier version.
func TestRequestTokenAfterAnEarlierVersion(t *testing.T) {
	const earlier = "f47ac10b-58cc-4372-a567-0e02b2c3d479"
	if first := requestToken(earlier); first <= earlier || first != requestToken("") {
		t.Errorf("after a token of an earlier version comes %q", first)
	}
}

// A head with more and longer errors than the store can keep has the first of them.
func TestHeadIsShortened(t *testing.T) {
	head := &carav1.Snapshot{Sequence: 1, ErrorCount: 100}
	for i := range 100 {
		head.FileErrors = append(head.FileErrors, &carav1.FileProblem{File: strings.Repeat("f", 4096), Line: int32(i + 1), Message: strings.Repeat("m", 2048)})
	}
	got := shortened(head)
	if len(got.GetFileErrors()) != 12 || got.GetFileErrors()[0].GetLine() != 1 || got.GetErrorCount() != 100 || len(head.GetFileErrors()) != 100 {
		t.Errorf("%d errors of %d are kept, want the first 12", len(got.GetFileErrors()), got.GetErrorCount())
	}
}
