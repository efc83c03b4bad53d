package apiserver

import (
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// declares creates a source that declares projects, and publishes it.
func (w *town) declares(t testing.TB, source string, names ...string) {
	t.Helper()
	src, err := carav1.NewSourceServiceClient(w.as(t, "admin")).CreateSource(t.Context(), &carav1.CreateSourceRequest{Source: &carav1.Source{
		ApiVersion: api.APIVersion, Kind: api.KindSource, Metadata: &carav1.ObjectMeta{Name: source},
		Spec: &carav1.SourceSpec{Dir: &carav1.DirSource{Path: "/srv"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var claims []*carav1.ClaimSpec
	for _, name := range names {
		c := claim(name)
		c.Revision, c.Author = "1a2b3c4d5e6f", "Ada"
		claims = append(claims, c)
	}
	w.publishAs(t, src, 1, claims)
}

func (w *town) publishAs(t testing.TB, src *carav1.Source, sequence int64, upserts []*carav1.ClaimSpec, absent ...string) {
	t.Helper()
	stream, err := carav1.NewSourceServiceClient(w.loop(t, "sources")).PublishSnapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&carav1.PublishSnapshotRequest{
		Source: src.GetMetadata().GetName(), SourceUid: src.GetMetadata().GetUid(), Upserts: upserts, Absent: absent,
		Head: &carav1.Snapshot{Revision: "1a2b3c4d5e6f", Sequence: sequence, Complete: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}
}

func (w *town) source(t testing.TB, name string) *carav1.Source {
	t.Helper()
	src, ok := state.Get[*carav1.Source](w.db.Cache, name)
	if !ok {
		t.Fatalf("source %s is not there", name)
	}
	return src
}

// eventsOf returns the reasons of a project's events, oldest first.
func (w *town) eventsOf(t testing.TB, project string) string {
	t.Helper()
	list, err := carav1.NewEventServiceClient(w.as(t, "viewer")).ListEvents(t.Context(), &carav1.ListEventsRequest{Kind: api.KindProject, Name: project})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range list.GetItems() {
		all = append(all, e.GetReason())
	}
	return strings.Join(all, " ")
}

func TestAdopt(t *testing.T) {
	w := newTown(t)
	fillWith(t, w.house, web("web"))
	adopt := func(source string) (*carav1.Project, error) {
		return w.admin.AdoptProject(t.Context(), &carav1.AdoptProjectRequest{Name: "web", Source: source})
	}
	_, err := adopt("")
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	w.declares(t, "team", "web")
	w.declares(t, "other", "web")
	_, err = adopt("")
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	if !strings.Contains(err.Error(), "other and team") || !strings.Contains(err.Error(), "--source") {
		t.Errorf("two claimants: %v", err)
	}
	_, err = adopt("nobody")
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)
	for _, token := range []string{"viewer", "ci", "n1"} {
		_, err = carav1.NewProjectServiceClient(w.as(t, token)).AdoptProject(t.Context(), &carav1.AdoptProjectRequest{Name: "web", Source: "team"})
		testproblem.Want(t, err, codes.PermissionDenied, "")
	}
	p, err := adopt("team")
	if err != nil || p.GetMetadata().GetOwner() != "source/team" || p.GetMetadata().GetOrigin().GetFile() != "web.yaml" ||
		p.GetMetadata().GetOrigin().GetAuthor() != "Ada" || p.GetMetadata().GetGeneration() != 1 {
		t.Fatalf("%v %v", p, err)
	}
	if _, err := adopt("team"); err != nil {
		t.Errorf("what it has already: %v", err)
	}
	_, err = adopt("other")
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleOwned)
	if !strings.Contains(err.Error(), "release it first") {
		t.Errorf("what another has: %v", err)
	}
	if got := w.eventsOf(t, "web"); !strings.HasSuffix(got, "Adopted") {
		t.Errorf("events %s", got)
	}
}

// TestAdoptIsCompareAndSwap: if two sources adopt a project concurrently, one gets it.
func TestAdoptIsCompareAndSwap(t *testing.T) {
	w := newTown(t)
	fillWith(t, w.house, web("web"))
	w.declares(t, "team", "web")
	w.declares(t, "other", "web")
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = w.admin.AdoptProject(t.Context(), &carav1.AdoptProjectRequest{Name: "web", Source: []string{"team", "other"}[i%2]})
		})
	}
	wg.Wait()
	owner := w.get(t, "web").GetMetadata().GetOwner()
	for i, err := range errs {
		if mine := "source/"+[]string{"team", "other"}[i%2] == owner; mine != (err == nil) {
			t.Errorf("%d: %v, and %s has it", i, err, owner)
		}
	}
}

func TestRelease(t *testing.T) {
	w := newTown(t)
	w.applyFor(t, "platform", "", web("web"))
	release := func(token string) error {
		_, err := carav1.NewProjectServiceClient(w.as(t, token)).ReleaseProject(t.Context(), &carav1.ReleaseProjectRequest{Name: "web"})
		return err
	}
	testproblem.Want(t, release("viewer"), codes.PermissionDenied, "")
	testproblem.Want(t, release("ci"), codes.PermissionDenied, "")
	if _, err := w.admin.OverrideProject(t.Context(), &carav1.OverrideProjectRequest{Name: "web", Terms: &carav1.OverrideTerms{Reason: "x"}}); err != nil {
		t.Fatal(err)
	}
	if err := release("admin"); err != nil {
		t.Fatal(err)
	}
	p := w.get(t, "web")
	if p.GetMetadata().GetOwner() != "user/admin" || p.GetMetadata().GetOrigin() != nil || api.IsTrue(p.GetStatus().GetConditions(), api.CondOverridden) {
		t.Errorf("released: %v", p)
	}
	if _, ok := state.Get[*carav1.Override](w.db.Cache, "web"); ok {
		t.Error("an override of nothing stands")
	}
	testproblem.Want(t, release("admin"), codes.FailedPrecondition, api.TitleConflict)
	if r := w.applyFor(t, "platform", "", image("web", "nginx:2")); r.GetProblem().GetTitle() != api.TitleAdoptionRequired || !strings.Contains(r.GetProblem().GetDetail(), "caractrl adopt web") {
		t.Errorf("the source's next pass: %v", r)
	}
	if r := w.applyFor(t, "platform", "Always", image("web", "nginx:2")); r.GetAction() != api.ApplyConfigured {
		t.Errorf("one that adopts Always: %v", r)
	}
	if got := w.eventsOf(t, "web"); !strings.Contains(got, "Overridden Released OverrideEnded") {
		t.Errorf("events %s", got)
	}
}

// TestReleaseKeepsAnExtension: a released project keeps its extended expiry.
func TestReleaseKeepsAnExtension(t *testing.T) {
	for name, letGo := range map[string]func(*testing.T, *town){
		"released": func(t *testing.T, w *town) {
			if _, err := w.admin.ReleaseProject(t.Context(), &carav1.ReleaseProjectRequest{Name: "pr-1"}); err != nil {
				t.Fatal(err)
			}
		},
		"source deleted": func(t *testing.T, w *town) {
			src := w.source(t, "platform").GetMetadata()
			if _, err := carav1.NewSourceServiceClient(w.as(t, "admin")).DeleteSource(t.Context(), &carav1.DeleteRequest{Name: "platform"}); err != nil {
				t.Fatal(err)
			}
			remove := &carav1.DeleteRequest{Name: "platform", Uid: src.GetUid()}
			if _, err := carav1.NewSourceServiceClient(w.loop(t, "reconciler")).RemoveSource(t.Context(), remove); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t)
			w.declares(t, "platform", "pr-1")
			p := web("pr-1")
			p.Spec.ExpireAt = timestamppb.New(time.Now().Add(time.Hour))
			w.applyFor(t, "platform", "", p)
			if _, err := w.admin.ExtendProject(t.Context(), &carav1.ExtendProjectRequest{Name: "pr-1", By: durationpb.New(24 * time.Hour), Reason: "demo"}); err != nil {
				t.Fatal(err)
			}
			letGo(t, w)
			got := w.get(t, "pr-1")
			if d := got.GetStatus().GetExpireAt().AsTime().Sub(p.GetSpec().GetExpireAt().AsTime()); d != 24*time.Hour ||
				!got.GetSpec().GetExpireAt().AsTime().Equal(got.GetStatus().GetExpireAt().AsTime()) {
				t.Errorf("it expires %s after git's word: %v", d, got)
			}
			if api.IsTrue(got.GetStatus().GetConditions(), api.CondOverridden) {
				t.Error("it says that it is overridden")
			}
		})
	}
}
