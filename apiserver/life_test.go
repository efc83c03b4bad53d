package apiserver

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// town is a server with connections for all roles that change projects.
type town struct {
	*house
	admin, scheduler, gc, reconciler, n1, n2 carav1.ProjectServiceClient
	apply                                    carav1.ApplyServiceClient // the reconciler's
	person                                   carav1.ApplyServiceClient
}

func newTown(t *testing.T) *town {
	t.Helper()
	h := newHouse(t, nil)
	addNode(t, h, "n1")
	addNode(t, h, "n2")
	return &town{
		house: h,
		admin: carav1.NewProjectServiceClient(h.as(t, "admin")), scheduler: carav1.NewProjectServiceClient(h.loop(t, "scheduler")),
		gc: carav1.NewProjectServiceClient(h.loop(t, "gc")), reconciler: carav1.NewProjectServiceClient(h.loop(t, "reconciler")),
		n1: carav1.NewProjectServiceClient(h.as(t, "n1")), n2: carav1.NewProjectServiceClient(h.as(t, "n2")),
		apply: carav1.NewApplyServiceClient(h.loop(t, "reconciler")), person: carav1.NewApplyServiceClient(h.as(t, "admin")),
	}
}

func (w *town) get(t testing.TB, name string) *carav1.Project {
	t.Helper()
	p, ok := state.Get[*carav1.Project](w.db.Cache, name)
	if !ok {
		t.Fatalf("project %s is not there", name)
	}
	return p
}

func (w *town) bind(t testing.TB, name, node string) {
	t.Helper()
	_, err := w.scheduler.ScheduleProject(t.Context(), &carav1.ScheduleProjectRequest{
		Name: name, ResourceVersion: w.get(t, name).GetMetadata().GetResourceVersion(), Action: "Bind", NodeRef: node,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// reportOf returns a report with the current state of the project.
func (w *town) reportOf(t testing.TB, name, phase string) *carav1.UpdateProjectStatusRequest {
	p := w.get(t, name)
	return &carav1.UpdateProjectStatusRequest{
		Name: name, Uid: p.GetMetadata().GetUid(), Epoch: p.GetStatus().GetEpoch(),
		ObservedGeneration: p.GetMetadata().GetGeneration(), Phase: phase,
		Services: []*carav1.ServiceStatus{{Name: "web", State: "Running"}},
	}
}

func (w *town) running(t testing.TB, name string) {
	t.Helper()
	w.bind(t, name, "n1")
	if _, err := w.n1.UpdateProjectStatus(t.Context(), w.reportOf(t, name, api.PhaseRunning)); err != nil {
		t.Fatal(err)
	}
}

func (w *town) phase(t testing.TB, name, want string) {
	t.Helper()
	if got := w.get(t, name).GetStatus().GetPhase(); got != want {
		t.Fatalf("%s is %s, want %s", name, got, want)
	}
}

func TestLifeOfAProject(t *testing.T) {
	w := newTown(t)
	fillWith(t, w.house, web("shop"))
	w.running(t, "shop")
	w.phase(t, "shop", api.PhaseRunning)

	changed := web("shop")
	changed.Spec.Services[0].Image = "nginx:2"
	if _, err := w.admin.PutProject(t.Context(), &carav1.PutProjectRequest{Project: changed}); err != nil {
		t.Fatal(err)
	}
	p := w.get(t, "shop")
	if p.GetStatus().GetPhase() != api.PhaseScheduled || p.GetStatus().GetNodeRef() != "n1" || p.GetStatus().GetEpoch() != 1 ||
		p.GetMetadata().GetGeneration() != 2 || p.GetStatus().GetObservedGeneration() != 1 {
		t.Fatalf("after a change: %v", p)
	}
	stale := w.reportOf(t, "shop", api.PhaseRunning)
	stale.ObservedGeneration = 1
	_, err := w.n1.UpdateProjectStatus(t.Context(), stale)
	testproblem.Want(t, err, codes.Aborted, api.TitleStaleGeneration)

	failed := w.reportOf(t, "shop", api.PhaseFailed)
	failed.Conditions = []*carav1.Condition{{Type: api.CondPhase, Status: api.StatusTrue, Reason: "ImageNotFound", Message: "no nginx:2"}}
	if _, err := w.n1.UpdateProjectStatus(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	if c := api.FindCondition(w.get(t, "shop").GetStatus().GetConditions(), api.CondPhase); c.GetReason() != "ImageNotFound" {
		t.Errorf("Phase condition: %v", c)
	}
	if _, err := w.admin.RetryProject(t.Context(), &carav1.RetryProjectRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	w.phase(t, "shop", api.PhasePending)
	w.bind(t, "shop", "n2")
	if got := w.get(t, "shop").GetStatus().GetEpoch(); got != 2 {
		t.Errorf("epoch is %d after the second assignment", got)
	}
	old := w.reportOf(t, "shop", api.PhaseRunning)
	old.Epoch = 1
	_, err = w.n1.UpdateProjectStatus(t.Context(), old)
	testproblem.Want(t, err, codes.Aborted, api.TitleStaleEpoch)
	_, err = w.n1.UpdateProjectStatus(t.Context(), w.reportOf(t, "shop", api.PhaseRunning))
	testproblem.Want(t, err, codes.PermissionDenied, api.TitleForbidden)

	answer, err := w.admin.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop"})
	if err != nil || answer.GetGone() || answer.GetMessage() != `project "shop" is being deleted` {
		t.Fatalf("%v, %v", answer, err)
	}
	for _, p := range []*carav1.Project{web("shop"), w.get(t, "shop")} { // another spec, and the same
		_, err = w.admin.PutProject(t.Context(), &carav1.PutProjectRequest{Project: p})
		testproblem.Want(t, err, codes.Aborted, "Terminating")
	}
	if _, err := w.n2.UpdateProjectStatus(t.Context(), w.reportOf(t, "shop", api.PhaseTerminated)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.gc.RemoveProject(t.Context(), &carav1.RemoveProjectRequest{Name: "shop", Uid: w.get(t, "shop").GetMetadata().GetUid()}); err != nil {
		t.Fatal(err)
	}
	grave, ok := state.Get[*carav1.Tombstone](w.db.Cache, "shop")
	if !ok || grave.GetActor() != "user/admin" || grave.GetReason() != "Deleted" {
		t.Errorf("tombstone: %v", grave)
	}
}

func TestDeleteWaitsForTheEnd(t *testing.T) {
	w := newTown(t)
	w.objects.DeleteWait = time.Minute
	fillWith(t, w.house, web("shop"))
	w.running(t, "shop")
	go func() {
		_ = w.db.Cache.Await(t.Context(), func() bool { return w.get(t, "shop").GetStatus().GetPhase() == api.PhaseTerminating })
		_, _ = w.n1.UpdateProjectStatus(t.Context(), w.reportOf(t, "shop", api.PhaseTerminated))
		_, _ = w.gc.RemoveProject(t.Context(), &carav1.RemoveProjectRequest{Name: "shop", Uid: w.get(t, "shop").GetMetadata().GetUid()})
	}()
	answer, err := w.admin.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop"})
	if err != nil || !answer.GetGone() || answer.GetMessage() != `project "shop" deleted` {
		t.Fatalf("%v, %v", answer, err)
	}
}

func TestForceNeedsNoAgent(t *testing.T) {
	w := newTown(t)
	fillWith(t, w.house, web("shop"))
	w.running(t, "shop")
	answer, err := w.admin.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "shop", Force: true})
	if err != nil || !answer.GetGone() {
		t.Fatalf("%v, %v", answer, err)
	}
}

func TestReportThatSaysNothingNewWritesNothing(t *testing.T) {
	w := newTown(t)
	fillWith(t, w.house, web("shop"))
	w.running(t, "shop")
	before := w.db.Cache.Revision()
	for range 3 {
		if _, err := w.n1.UpdateProjectStatus(t.Context(), w.reportOf(t, "shop", "")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.admin.PutProject(t.Context(), &carav1.PutProjectRequest{Project: web("shop")}); err != nil {
			t.Fatal(err)
		}
	}
	if after := w.db.Cache.Revision(); after != before {
		t.Errorf("%d writes for nothing", after-before)
	}
}

func TestScheduleIsCompareAndSwap(t *testing.T) {
	w := newTown(t)
	fillWith(t, w.house, web("shop"))
	req := &carav1.ScheduleProjectRequest{Name: "shop", ResourceVersion: "1", Action: "Bind", NodeRef: "n1"}
	_, err := w.scheduler.ScheduleProject(t.Context(), req)
	testproblem.Want(t, err, codes.Aborted, api.TitleConflict)
	req.ResourceVersion, req.NodeRef = w.get(t, "shop").GetMetadata().GetResourceVersion(), "n9"
	_, err = w.scheduler.ScheduleProject(t.Context(), req)
	testproblem.Want(t, err, codes.NotFound, api.TitleNotFound)
	w.bind(t, "shop", "n1")
	req.ResourceVersion, req.NodeRef = w.get(t, "shop").GetMetadata().GetResourceVersion(), "n2"
	_, err = w.scheduler.ScheduleProject(t.Context(), req)
	testproblem.Want(t, err, codes.Aborted, api.TitleConflict)
	req.Action = "Evict"
	if _, err := w.scheduler.ScheduleProject(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	w.phase(t, "shop", api.PhasePending)
}

func TestExpiry(t *testing.T) {
	w := newTown(t)
	past := web("old")
	past.Spec.ExpireAt = timestamppb.New(time.Now().Add(-time.Minute))
	_, err := w.admin.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: past})
	testproblem.Want(t, err, codes.InvalidArgument, api.TitleInvalid)
	if r := w.applyFor(t, "platform", "", past); r.GetProblem().GetTitle() != api.TitleExpired {
		t.Errorf("reconciler: %v", r)
	}
	soon := web("soon")
	soon.Spec.ExpireAt = timestamppb.New(time.Now().Add(time.Hour))
	w.applyFor(t, "platform", "", soon)
	_, err = w.admin.ExtendProject(t.Context(), &carav1.ExtendProjectRequest{Name: "soon", By: durationpb.New(time.Hour), Reason: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	p := w.get(t, "soon")
	if got := p.GetStatus().GetExpireAt().AsTime().Sub(p.GetSpec().GetExpireAt().AsTime()); got != time.Hour {
		t.Errorf("status.expireAt is %s after the spec's", got)
	}
	if o, ok := state.Get[*carav1.Override](w.db.Cache, "soon"); !ok || o.GetScope() != api.OverrideExpiry {
		t.Errorf("override %v", o)
	}
	before := w.db.Cache.Revision()
	if r := w.applyFor(t, "platform", "", soon); r.GetAction() != api.ApplyUnchanged || w.db.Cache.Revision() != before {
		t.Errorf("git's next pass: %v", r)
	}
	later := proto.CloneOf(soon)
	later.Spec.ExpireAt = timestamppb.New(time.Now().Add(5 * time.Hour))
	if r := w.applyFor(t, "platform", "", later); r.GetAction() != api.ApplyConfigured {
		t.Errorf("a later expiry in git: %v", r)
	}
	if _, ok := state.Get[*carav1.Override](w.db.Cache, "soon"); ok {
		t.Error("the extension outlived a later expiry in git")
	}
	if got := w.get(t, "soon").GetStatus().GetExpireAt(); !proto.Equal(got, later.GetSpec().GetExpireAt()) {
		t.Errorf("status.expireAt is %v", got.AsTime())
	}
}
