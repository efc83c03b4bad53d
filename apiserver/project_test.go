package apiserver

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

func TestCreateAndRead(t *testing.T) {
	h := newHouse(t, nil)
	projects := carav1.NewProjectServiceClient(h.as(t, "admin"))
	p, err := projects.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: web("shop")})
	if err != nil {
		t.Fatal(err)
	}
	if p.GetStatus().GetPhase() != api.PhasePending || p.GetMetadata().GetOwner() != "user/admin" || p.GetMetadata().GetGeneration() != 1 {
		t.Errorf("created %v", p)
	}
	got, err := projects.GetProject(t.Context(), &carav1.GetRequest{Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetMetadata().GetResourceVersion() != p.GetMetadata().GetResourceVersion() {
		t.Errorf("get has resourceVersion %s, create said %s", got.GetMetadata().GetResourceVersion(), p.GetMetadata().GetResourceVersion())
	}
	_, err = projects.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: web("shop")})
	testproblem.Want(t, err, codes.AlreadyExists, api.TitleAlreadyExists)
}
