package apiserver

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// TestRetryOfAnUpdate: if an update failed and the previous version runs, a retry restarts the services that are not
// updated, and clears the failure.
func TestRetryOfAnUpdate(t *testing.T) {
	w := newTown(t)
	spec := web("shop")
	spec.Spec.Services = append(spec.Spec.Services, &carav1.Service{Name: "db", Image: "db:1"})
	fillWith(t, w.house, spec)
	w.running(t, "shop")
	_, err := w.admin.RetryProject(t.Context(), &carav1.RetryProjectRequest{Name: "shop"})
	testproblem.Want(t, err, codes.FailedPrecondition, api.TitleConflict)

	report := w.reportOf(t, "shop", "")
	report.Services = []*carav1.ServiceStatus{
		{Name: "web", State: "Running", SpecHash: "v1:old"},
		{Name: "db", State: "Running", SpecHash: api.ServiceHash(spec.Spec, "db")},
	}
	report.Conditions = []*carav1.Condition{{Type: api.CondReady, Status: api.StatusFalse, Reason: api.ReasonUpdateFailed, Message: "it crashed"}}
	for range 2 {
		if _, err := w.n1.UpdateProjectStatus(t.Context(), report); err != nil {
			t.Fatal(err)
		}
	}
	p := w.get(t, "shop")
	if !api.UpdateFailed(p) || p.GetStatus().GetPhase() != api.PhaseRunning {
		t.Fatalf("after the report: %v", p.GetStatus())
	}
	if _, err := w.admin.RetryProject(t.Context(), &carav1.RetryProjectRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	p = w.get(t, "shop")
	st := p.GetStatus()
	if api.UpdateFailed(p) || st.GetRestartToken() == "" || !slices.Equal(st.GetRestartServices(), []string{"web"}) || st.GetNodeRef() != "n1" || st.GetEpoch() != 1 {
		t.Errorf("after the retry: %v", st)
	}
	if _, err := w.n1.UpdateProjectStatus(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	if _, err := w.admin.RestartProject(t.Context(), &carav1.RestartProjectRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	if p := w.get(t, "shop"); api.UpdateFailed(p) || p.GetStatus().GetRestartToken() == st.GetRestartToken() {
		t.Errorf("after a restart: %v", p.GetStatus())
	}
}

// TestTwoRestartRequests: a request to restart one service does not hide an earlier one of another service.
func TestTwoRestartRequests(t *testing.T) {
	w := newTown(t)
	spec := web("shop")
	spec.Spec.Services = append(spec.Spec.Services, &carav1.Service{Name: "db", Image: "db:1"})
	fillWith(t, w.house, spec)
	w.running(t, "shop")
	for _, service := range []string{"web", "db"} {
		if _, err := w.admin.RestartProject(t.Context(), &carav1.RestartProjectRequest{Name: "shop", Services: []string{service}}); err != nil {
			t.Fatal(err)
		}
	}
	restarts := w.get(t, "shop").GetStatus().GetRestarts()
	if restarts["web"] == "" || restarts["db"] == "" || restarts["web"] == restarts["db"] {
		t.Errorf("tokens after a restart of web and then of db: %v", restarts)
	}
}
