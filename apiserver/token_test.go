package apiserver

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

func TestTokens(t *testing.T) {
	now := time.Now()
	c := newCluster(t, func(cfg *Config) { cfg.Now = func() time.Time { return now } })
	tokens := carav1.NewTokenServiceClient(c.admin(t))
	made, err := tokens.CreateToken(t.Context(), &carav1.CreateTokenRequest{Token: &carav1.Token{
		Metadata: &carav1.ObjectMeta{Name: "ci"}, Role: "deployer", NamePrefix: "pr-", ExpireAt: timestamppb.New(now.Add(time.Hour)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(made.GetToken().GetSecretHash()) != 0 || !strings.HasPrefix(made.GetSecret(), "cara_ci_") {
		t.Errorf("made %v", made.GetToken())
	}
	_, err = tokens.CreateToken(t.Context(), &carav1.CreateTokenRequest{Token: &carav1.Token{Metadata: &carav1.ObjectMeta{Name: "ci"}, Role: "viewer"}})
	testproblem.Want(t, err, codes.AlreadyExists, "")

	ci := c.dial(t, made.GetSecret())
	info, err := carav1.NewInfoServiceClient(ci).GetInfo(t.Context(), &emptypb.Empty{})
	if err != nil || info.GetActor() != "user/ci" {
		t.Errorf("info %v, %v", info, err)
	}
	projects := carav1.NewProjectServiceClient(ci)
	if _, err := projects.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: web("pr-1")}); err != nil {
		t.Error(err)
	}
	_, err = projects.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: web("prod")})
	testproblem.Want(t, err, codes.PermissionDenied, "")
	_, err = carav1.NewTokenServiceClient(ci).ListTokens(t.Context(), &carav1.ListRequest{})
	testproblem.Want(t, err, codes.PermissionDenied, "")

	list, err := tokens.ListTokens(t.Context(), &carav1.ListRequest{})
	if err != nil || len(list.GetItems()) != 3 {
		t.Errorf("list %v, %v", list, err)
	}
	for _, token := range list.GetItems() {
		if len(token.GetSecretHash()) != 0 {
			t.Errorf("the list has the hash of %s", token.GetMetadata().GetName())
		}
	}

	now = now.Add(2 * time.Hour)
	_, err = projects.ListProjects(t.Context(), &carav1.ListProjectsRequest{})
	testproblem.Want(t, err, codes.Unauthenticated, "")
	if !strings.Contains(err.Error(), "ended at") {
		t.Errorf("%v says not that the token ended", err)
	}
}

func TestTokenRefused(t *testing.T) {
	c := newCluster(t, nil)
	tokens := carav1.NewTokenServiceClient(c.admin(t))
	tests := []struct {
		name  string
		token *carav1.Token
		field string
	}{
		{"unknown role", &carav1.Token{Role: "root"}, "role"},
		{"a node's role", &carav1.Token{Role: "node"}, "role"},
		{"a loop's role", &carav1.Token{Role: "scheduler"}, "role"},
		{"a name like a certificate's", &carav1.Token{Role: "viewer", Metadata: &carav1.ObjectMeta{Name: "node.n1.00"}}, "metadata.name"},
		{"ended already", &carav1.Token{Role: "viewer", ExpireAt: timestamppb.New(time.Unix(1, 0))}, "expireAt"},
		{"uses of a person's", &carav1.Token{Role: "viewer", UsesLeft: 3}, "usesLeft"},
		{"used up at once", &carav1.Token{Role: "join", UsesLeft: -1}, "usesLeft"},
		{"an administrator with hosts", &carav1.Token{Role: "admin", Hosts: []string{"*"}}, "hosts"},
		{"a host that is not a pattern", &carav1.Token{Role: "deployer", Hosts: []string{"http://x"}}, "hosts[0]"},
		{"nodes of a deployer", &carav1.Token{Role: "deployer", NodeNames: []string{"n*"}}, "nodeNames"},
		{"a node's name that is not a pattern", &carav1.Token{Role: "join", NodeNames: []string{"N 1"}}, "nodeNames[0]"},
		{"a label that is not one", &carav1.Token{Role: "join", Labels: map[string]string{"rack": "a b"}}, "labels[rack]"},
		{"an administrator with a prefix", &carav1.Token{Role: "admin", NamePrefix: "pr-"}, "namePrefix"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := tokens.CreateToken(t.Context(), &carav1.CreateTokenRequest{Token: test.token})
			testproblem.Want(t, err, codes.InvalidArgument, api.TitleInvalid)
			if fields := api.ProblemOf(err).GetErrors(); len(fields) != 1 || fields[0].GetField() != test.field {
				t.Errorf("fields %v, want %s", fields, test.field)
			}
		})
	}
}

func TestRevoke(t *testing.T) {
	c := newCluster(t, nil)
	tokens := carav1.NewTokenServiceClient(c.admin(t))
	_, err := tokens.DeleteToken(t.Context(), &carav1.DeleteRequest{Name: firstAdmin})
	testproblem.Want(t, err, codes.FailedPrecondition, "")
	made, err := tokens.CreateToken(t.Context(), &carav1.CreateTokenRequest{Token: &carav1.Token{Metadata: &carav1.ObjectMeta{Name: "second"}, Role: "admin"}})
	if err != nil {
		t.Fatal(err)
	}
	second := c.dial(t, made.GetSecret())
	if _, err := carav1.NewTokenServiceClient(second).DeleteToken(t.Context(), &carav1.DeleteRequest{Name: firstAdmin}); err != nil {
		t.Fatal(err)
	}
	_, err = tokens.ListTokens(t.Context(), &carav1.ListRequest{})
	testproblem.Want(t, err, codes.Unauthenticated, "")

	// A certificate of a node is a token too; revoked, its agent's stream ends with the next heartbeat.
	agent := connectAgent(t, c.node(t, "n1"), "a")
	agent.synced()
	list, err := carav1.NewTokenServiceClient(second).ListTokens(t.Context(), &carav1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range list.GetItems() {
		if token.GetRole() == api.RoleNode {
			if _, err := carav1.NewTokenServiceClient(second).DeleteToken(t.Context(), &carav1.DeleteRequest{Name: token.GetMetadata().GetName()}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := agent.stream.Send(&carav1.ConnectRequest{Heartbeat: &carav1.Heartbeat{}}); err != nil {
		t.Fatal(err)
	}
	testproblem.Want(t, agent.ended(), codes.Unauthenticated, "")
}
