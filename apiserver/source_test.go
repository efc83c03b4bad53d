package apiserver

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/objects"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// farm is a server with one source and the loops that use it.
type farm struct {
	*house
	uid                         string
	admin, sources, reconciler  carav1.SourceServiceClient
	events, gcEvents, loopEvent carav1.EventServiceClient
}

func newFarm(t *testing.T) *farm {
	t.Helper()
	f := farmOn(t, newHouse(t, nil))
	f.createSource(t)
	return f
}

func farmOn(t *testing.T, h *house) *farm {
	t.Helper()
	return &farm{
		house: h, admin: carav1.NewSourceServiceClient(h.as(t, "admin")),
		sources: carav1.NewSourceServiceClient(h.loop(t, "sources")), reconciler: carav1.NewSourceServiceClient(h.loop(t, "reconciler")),
		events: carav1.NewEventServiceClient(h.as(t, "viewer")), gcEvents: carav1.NewEventServiceClient(h.loop(t, "gc")),
		loopEvent: carav1.NewEventServiceClient(h.loop(t, "sources")),
	}
}

func (f *farm) createSource(t *testing.T) {
	t.Helper()
	src, err := f.admin.CreateSource(t.Context(), &carav1.CreateSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: "platform"},
		Spec: &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	f.uid = src.GetMetadata().GetUid()
}

func (f *farm) publish(t *testing.T, sequence int64, upserts []*carav1.ClaimSpec, absent ...string) error {
	t.Helper()
	stream, err := f.sources.PublishSnapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	msgs := []*carav1.PublishSnapshotRequest{
		{Source: "platform", SourceUid: f.uid, Head: &carav1.Snapshot{Revision: fmt.Sprintf("%040d", sequence), Sequence: sequence, Complete: true}},
		{Upserts: upserts},
		{Absent: absent},
	}
	for _, m := range msgs {
		if err := stream.Send(m); err != nil {
			break // the answer says why
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

func claim(name string) *carav1.ClaimSpec {
	p := web(name)
	return &carav1.ClaimSpec{Project: p, Hash: api.ClaimHash(p), File: name + ".yaml", Line: 1, Present: true}
}

func TestSnapshotIsOneTransaction(t *testing.T) {
	f := newFarm(t)
	watch, err := carav1.NewWatchServiceClient(f.loop(t, "reconciler")).Watch(t.Context(), &carav1.WatchRequest{Kinds: []string{api.KindSource, api.KindClaim}})
	if err != nil {
		t.Fatal(err)
	}
	for synced := false; !synced; {
		msg, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		synced = msg.GetSynced()
	}
	if err := f.publish(t, 1, []*carav1.ClaimSpec{claim("a"), claim("b")}); err != nil {
		t.Fatal(err)
	}
	msg, err := watch.Recv()
	if err != nil || len(msg.GetChanges()) != 3 {
		t.Fatalf("%v %v: want the source and two claims at once", msg, err)
	}
	testproblem.Want(t, f.publish(t, 1, nil), codes.Aborted, api.TitleConflict)
	testproblem.Want(t, f.publish(t, 3, nil), codes.Aborted, api.TitleConflict)
	if err := f.publish(t, 2, []*carav1.ClaimSpec{claim("a")}, "b", "never-there"); err != nil {
		t.Fatal(err)
	}
	b, _ := state.Get[*carav1.Claim](f.db.Cache, "platform/b")
	a, _ := state.Get[*carav1.Claim](f.db.Cache, "platform/a")
	if b.GetSpec().GetPresent() || !a.GetSpec().GetPresent() {
		t.Errorf("a present %v, b present %v", a.GetSpec().GetPresent(), b.GetSpec().GetPresent())
	}
	update := func(project string, remove bool) error {
		_, err := f.reconciler.UpdateClaims(t.Context(), &carav1.UpdateClaimsRequest{Source: "platform", Updates: []*carav1.ClaimUpdate{
			{Project: project, Remove: remove, Status: &carav1.ClaimStatus{State: "Applied"}},
		}})
		return err
	}
	testproblem.Want(t, update("a", true), codes.Aborted, api.TitleConflict)
	for _, err := range []error{update("a", false), update("b", true), update("b", true)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	list, err := f.admin.ListClaims(t.Context(), &carav1.ListClaimsRequest{Source: "platform"})
	if err != nil || len(list.GetItems()) != 1 || list.GetItems()[0].GetStatus().GetState() != "Applied" {
		t.Errorf("claims %v %v", list, err)
	}
}

func TestSnapshotIsBounded(t *testing.T) {
	f := newFarm(t)
	many := make([]*carav1.ClaimSpec, objects.MaxSnapshotClaims+1)
	for i := range many {
		many[i] = claim(fmt.Sprintf("p-%d", i))
	}
	testproblem.Want(t, f.publish(t, 1, many), codes.ResourceExhausted, "TooLarge")
	if err := f.publish(t, 1, many[:objects.MaxSnapshotClaims]); err != nil {
		t.Fatal(err)
	}
}

func TestPollsStayInMemory(t *testing.T) {
	f := newFarm(t)
	before := f.db.Cache.Revision()
	for range 3 {
		src, err := f.sources.UpdateSourceStatus(t.Context(), &carav1.UpdateSourceStatusRequest{
			Name: "platform", Uid: f.uid, Poll: &carav1.PollStatus{LastTime: timestamppb.Now(), ObservedRevision: "abc"},
		})
		if err != nil || src.GetStatus().GetPoll().GetObservedRevision() != "abc" {
			t.Fatalf("%v %v", src, err)
		}
	}
	if f.db.Cache.Revision() != before {
		t.Error("a poll was written")
	}
	token, applied := "t1", "r1"
	for i := range 12 {
		if _, err := f.reconciler.UpdateSourceStatus(t.Context(), &carav1.UpdateSourceStatusRequest{
			Name: "platform", Uid: f.uid, HandledToken: &token, AppliedRevision: &applied, Run: &carav1.Run{Created: int32(i)},
			Conditions: []*carav1.Condition{{Type: api.CondReady, Status: api.StatusTrue, Reason: "Applied"}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	src, err := f.admin.GetSource(t.Context(), &carav1.GetRequest{Name: "platform"})
	if err != nil {
		t.Fatal(err)
	}
	st := src.GetStatus()
	if st.GetHandledToken() != token || len(st.GetRuns()) != objects.MaxRuns || st.GetRuns()[0].GetCreated() != 11 || st.GetPoll() == nil {
		t.Errorf("status %v", st)
	}
}

// Requests are numbered, and an older answer never replaces a newer one.
func TestRequestsAreAnsweredInOrder(t *testing.T) {
	f := newFarm(t)
	var tokens []string
	for range 3 {
		r, err := f.admin.ReconcileSource(t.Context(), &carav1.GetRequest{Name: "platform"})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, r.GetToken())
	}
	if !slices.IsSorted(tokens) || tokens[0] == tokens[1] {
		t.Errorf("tokens %q", tokens)
	}
	for _, answered := range []int{2, 0} { // the older answer arrives last
		src, err := f.reconciler.UpdateSourceStatus(t.Context(), &carav1.UpdateSourceStatusRequest{
			Name: "platform", Uid: f.uid, HandledToken: &tokens[answered],
		})
		if err != nil || src.GetStatus().GetHandledToken() != tokens[2] {
			t.Errorf("handled %q, %v", src.GetStatus().GetHandledToken(), err)
		}
	}
	if tokens[0] != "r0000000000000000001" {
		t.Errorf("the first request of a source has token %q", tokens[0])
	}
}

func TestConfirmIsForOneRevision(t *testing.T) {
	f := newFarm(t)
	if err := f.publish(t, 1, nil); err != nil {
		t.Fatal(err)
	}
	_, err := f.admin.ConfirmSource(t.Context(), &carav1.ConfirmSourceRequest{Name: "platform", Revision: "7654321"})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	src, err := f.admin.ConfirmSource(t.Context(), &carav1.ConfirmSourceRequest{Name: "platform", Revision: "0000000"})
	if err != nil || src.GetStatus().GetConfirmedRevision() != fmt.Sprintf("%040d", 1) {
		t.Errorf("%v %v", src, err)
	}
}

func TestEventsAreCounted(t *testing.T) {
	f := newFarm(t)
	e := &carav1.Event{
		ApiVersion: api.APIVersion, Kind: api.KindEvent, Type: "Warning", Reason: "FetchFailed", Message: "no route",
		Object: &carav1.ObjectRef{Kind: api.KindSource, Name: "platform"},
	}
	for range 3 {
		if _, err := f.loopEvent.CreateEvent(t.Context(), &carav1.CreateEventRequest{Event: e}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := f.events.ListEvents(t.Context(), &carav1.ListEventsRequest{Kind: api.KindSource, Name: "platform"})
	if err != nil || len(list.GetItems()) != 2 || list.GetItems()[1].GetCount() != 3 || list.GetItems()[1].GetActor() != "system/sources" {
		t.Fatalf("%v %v", list, err)
	}
	for i := range 2 * rules.EventsPerObject {
		other := proto.CloneOf(e)
		other.Message = fmt.Sprint("no route ", i)
		if _, err := f.loopEvent.CreateEvent(t.Context(), &carav1.CreateEventRequest{Event: other}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.db.Cache.View().EventsOn(api.KindSource, "platform")); n != rules.EventsPerObject {
		t.Errorf("%d events are kept of one object", n)
	}
	out, err := f.gcEvents.TrimHistory(t.Context(), &carav1.TrimHistoryRequest{EventsBefore: timestamppb.New(time.Now().Add(time.Minute))})
	if err != nil || out.GetEvents() != rules.EventsPerObject {
		t.Errorf("%v %v", out, err)
	}
}

func TestTrimKeepsWhatHoldsBack(t *testing.T) {
	f := newFarm(t)
	err := f.db.Transact(t.Context(), func(t *state.Tx) error {
		for _, name := range []string{"claimed", "forgotten"} {
			t.Put(&carav1.Tombstone{Metadata: &carav1.ObjectMeta{Name: name}, Reason: "Expired", Time: timestamppb.New(time.Unix(1, 0))})
		}
		t.Put(&carav1.Override{Metadata: &carav1.ObjectMeta{Name: "ended"}, Scope: api.OverrideDeletion, Until: timestamppb.New(time.Unix(1, 0))})
		t.Put(&carav1.Override{Metadata: &carav1.ObjectMeta{Name: "standing"}, Scope: api.OverrideDeletion})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.publish(t, 1, []*carav1.ClaimSpec{claim("claimed")}); err != nil {
		t.Fatal(err)
	}
	out, err := f.gcEvents.TrimHistory(t.Context(), &carav1.TrimHistoryRequest{TombstonesBefore: timestamppb.Now()})
	if err != nil || out.GetTombstones() != 1 || out.GetOverrides() != 1 {
		t.Errorf("%v %v", out, err)
	}
	if _, ok := state.Get[*carav1.Tombstone](f.db.Cache, "claimed"); !ok {
		t.Error("the tombstone that keeps an expired project away is gone")
	}
}

// PlanSource is the reconciler's own plan, also for a source that is suspended.
func TestPlanSource(t *testing.T) {
	f := newFarm(t)
	if err := f.publish(t, 1, []*carav1.ClaimSpec{claim("a"), claim("b")}); err != nil {
		t.Fatal(err)
	}
	want := func(steps ...string) {
		t.Helper()
		p, err := f.admin.PlanSource(t.Context(), &carav1.PlanSourceRequest{Name: "platform"})
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, s := range p.GetSteps() {
			have = append(have, fmt.Sprintf("%s %s %s %v", s.GetAction(), s.GetProject(), s.GetReason(), s.GetDiffers()))
		}
		if !slices.Equal(have, steps) {
			t.Errorf("steps %q, want %q", have, steps)
		}
	}
	want("Create a New true", "Create b New true")
	one, err := f.admin.PlanSource(t.Context(), &carav1.PlanSourceRequest{Name: "platform", Project: "b"})
	if err != nil || len(one.GetSteps()) != 1 || one.GetSteps()[0].GetProject() != "b" {
		t.Errorf("the plan for one project: %v %v", one, err)
	}
	claims, err := f.admin.ListClaims(t.Context(), &carav1.ListClaimsRequest{Source: "platform", Project: "b"})
	if err != nil || len(claims.GetItems()) != 1 || claims.GetItems()[0].GetSpec().GetProject().GetMetadata().GetName() != "b" {
		t.Errorf("the claims of one project: %v %v", claims, err)
	}
	if _, err := f.admin.SuspendSource(t.Context(), &carav1.GetRequest{Name: "platform"}); err != nil {
		t.Fatal(err)
	}
	want("Create a New true", "Create b New true")
	_, err = f.admin.PlanSource(t.Context(), &carav1.PlanSourceRequest{Name: "nosuch"})
	testproblem.Want(t, err, codes.NotFound, api.TitleNotFound)
}
