package apiserver

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// Every method of the contract is in the table, and nothing else is.
func TestMethodTableIsTotal(t *testing.T) {
	known := rpcs()
	for name := range known {
		if _, ok := methods[name]; !ok {
			t.Errorf("%s is not in the table: say who may call it", name)
		}
	}
	for name := range methods {
		if known[name] == nil {
			t.Errorf("%s is in the table and not in the contract", name)
		}
	}
}

func TestMethodTableKeepsItsPromises(t *testing.T) {
	person := func(r api.Role) bool { return r == api.RoleAdmin || r == api.RoleDeployer || r == api.RoleViewer }
	for name, m := range methods {
		for _, role := range m.roles {
			actor := identity.Actor{Name: "x", Role: role}
			switch {
			case role == api.RoleNone && shortMethod(name) != "Join" && !strings.HasSuffix(name, "Login"):
				t.Errorf("%s lets nobody in", name)
			case role == api.RoleViewer && m.write && shortMethod(name) != "Join" && !m.own && name != carav1.TokenService_CreateLogin_FullMethodName: // a login has the viewer's rights
				t.Errorf("%s lets a viewer write", name)
			case role == api.RoleNode && !m.write && shortMethod(name) != "GetInfo" && shortMethod(name) != "GetBlob": // it gets what its projects use
				t.Errorf("%s lets a node read the cluster", name)
			case m.quiet && person(role):
				t.Errorf("%s hides a person's change from the audit", name)
			}
			if err := authorise(actor, name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	testproblem.Want(t, authorise(identity.Actor{}, "/cara.v1.ProjectService/GetProject"), codes.Unauthenticated, api.TitleUnauthenticated)
	testproblem.Want(t, authorise(identity.Actor{Name: "user/v", Role: api.RoleViewer}, "/cara.v1.ProjectService/PutProject"), codes.PermissionDenied, api.TitleForbidden)
	testproblem.Want(t, authorise(identity.Actor{Name: "user/a", Role: api.RoleAdmin}, "/cara.v1.ProjectService/Explode"), codes.Unimplemented, api.TitleUnimplemented)
}

// TestMethodRefusals: the text names no method, and no role that a person cannot get.
func TestMethodRefusals(t *testing.T) {
	for name, want := range map[string]string{
		carav1.ProjectService_DeleteProject_FullMethodName:     "cannot delete projects; you need the role admin or deployer",
		carav1.ProjectService_PutProject_FullMethodName:        "cannot create or replace projects; you need the role admin or deployer",
		carav1.ProjectService_GetProjectHistory_FullMethodName: "cannot read project histories; you need the role admin or deployer or viewer",
		carav1.ProjectService_BackupProject_FullMethodName:     "cannot back up projects; you need the role admin or deployer",
		carav1.ProjectService_Exec_FullMethodName:              "cannot run commands in containers; you need the role admin or deployer",
		carav1.TokenService_ListTokens_FullMethodName:          "cannot read tokens; you need the role admin",
		carav1.ProjectService_RemoveProject_FullMethodName:     "cannot remove projects; only Cara's own programs can",
	} {
		want = "user/x has the role node, which " + want
		if err := authorise(identity.Actor{Name: "user/x", Role: api.RoleNode}, name); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	for name := range methods {
		if words := actionOf(name); strings.ToLower(words) != words || !strings.Contains(words, " ") {
			t.Errorf("%s is described as %q", name, words)
		}
	}
}

func TestOnlyLoopsAreLetInByClient(t *testing.T) {
	h := newHouse(t, nil)
	for _, name := range []string{"", "admin", "node", "viewer", "agent"} {
		if _, err := h.Client(name); err == nil {
			t.Errorf("Client(%q) gave a connection", name)
		}
	}
	info, err := carav1.NewInfoServiceClient(h.loop(t, "gc")).GetInfo(t.Context(), &emptypb.Empty{})
	if err != nil || info.GetActor() != "system/gc" {
		t.Errorf("got %v, %v", info, err)
	}
	_, err = carav1.NewProjectServiceClient(h.as(t, "impostor")).GetProject(t.Context(), &carav1.GetRequest{Name: "x"})
	testproblem.Want(t, err, codes.Unauthenticated, api.TitleUnauthenticated)
}
