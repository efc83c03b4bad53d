package apiserver

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// TestCapabilities: a project may add capabilities that at least one node allows, whoever declares it.
func TestCapabilities(t *testing.T) {
	w := newTown(t)
	with := func(name, capability string) *carav1.Project {
		p := web(name)
		p.Spec.Services[0].CapAdd = []string{capability}
		return p
	}
	create := func(p *carav1.Project) error {
		_, err := w.admin.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: p})
		return err
	}
	if err := create(with("chown", "CHOWN")); err != nil {
		t.Error(err)
	}
	testproblem.Want(t, create(with("net", "NET_ADMIN")), codes.InvalidArgument, api.TitleInvalid)
	if r := w.applyFor(t, "platform", "", with("pushed", "NET_ADMIN")); r.GetProblem() == nil {
		t.Errorf("pushed: %v", r)
	}
	nodes := carav1.NewNodeServiceClient(w.as(t, "n1"))
	if _, err := nodes.Heartbeat(t.Context(), &carav1.HeartbeatRequest{
		Name: "n1", Heartbeat: &carav1.Heartbeat{Info: &carav1.NodeInfo{AllowedCapabilities: []string{"NET_ADMIN"}}},
	}); err != nil {
		t.Fatal(err)
	}
	if err := create(with("net", "NET_ADMIN")); err != nil {
		t.Errorf("with a node that allows it: %v", err)
	}
	testproblem.Want(t, create(with("sys", "SYS_ADMIN")), codes.InvalidArgument, api.TitleInvalid)
}
