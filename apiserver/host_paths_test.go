package apiserver

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testproblem"
)

// atPath is a project with one path of a host.
func atPath(name, host, path string) *carav1.Project {
	p := at(name, host)
	p.Spec.Ingress[0].Path = path
	return p
}

// Projects share a host only if they have the same owner, and a path belongs to one of them.
func TestPathsOfAHost(t *testing.T) {
	w := newTown(t)
	w.haveSource(t, "a")
	w.haveSource(t, "b")
	for _, step := range []struct {
		source string
		p      *carav1.Project
		want   string // the problem; empty if it is accepted
	}{
		{"a", at("front", "shop"), ""},
		{"a", atPath("api", "shop", "/api"), ""},
		{"a", atPath("blog", "shop", "/api/"), `path /api of ingress host "shop.dev.example.test" belongs to project "api"`},
		{"b", atPath("stranger", "shop", "/login"), `belongs to project "front" of source/a, and only projects of the same owner can share a host`},
		{"a", atPath("api", "shop", "/v2"), ""},
		{"a", atPath("blog", "shop", "/api"), ""}, // api has released it
		{"a", at("front", "other"), ""},
		{"b", at("stranger", "shop"), `belongs to project "blog" of source/a`}, // the rest of the host is still a's
	} {
		got := w.applyFor(t, step.source, "", step.p)
		if step.want == "" && got.GetProblem() != nil {
			t.Fatalf("%s was refused: %v", step.p.GetMetadata().GetName(), got.GetProblem())
		}
		if step.want != "" {
			if p := got.GetProblem(); p.GetTitle() != api.TitleConflict || !strings.Contains(p.GetDetail(), step.want) {
				t.Errorf("%v, want the conflict %q", got, step.want)
			}
		}
	}
	_, err := w.admin.CreateProject(t.Context(), &carav1.CreateProjectRequest{Project: atPath("mine", "shop", "/login")})
	testproblem.Want(t, err, codes.AlreadyExists, api.TitleConflict)
}

// A project whose TLS is passed through has its host alone, also among projects of the same owner.
func TestHostOfPassedTLS(t *testing.T) {
	w := newTown(t)
	w.haveSource(t, "a")
	passed := func(name, host string) *carav1.Project {
		p := at(name, host)
		p.Spec.Ingress[0].Target.Protocol = api.TargetTLS
		return p
	}
	for _, step := range []struct {
		p       *carav1.Project
		refused bool
	}{
		{passed("front", "shop"), false},
		{atPath("api", "shop", "/api"), true},
		{at("front", "shop"), false},
		{atPath("api", "shop", "/api"), false},
		{passed("front", "shop"), true}, // the path "/" is its own, but the other project has a path
		{passed("front", "other"), false},
		{passed("front", "other"), false},
	} {
		got := w.applyFor(t, "a", "", step.p).GetProblem()
		if (got != nil) != step.refused || step.refused && !strings.Contains(got.GetDetail(), "a host with target.protocol TLS belongs to one project alone") {
			t.Errorf("%v: %v", step.p.GetSpec().GetIngress(), got)
		}
	}
}

// TestRoutesOfPaths: an agent gets all routes of a host together, and the simple form again when one is left.
func TestRoutesOfPaths(t *testing.T) {
	c := newCluster(t, nil)
	one := connectAgent(t, c.node(t, "n1"), "n1")
	one.synced()
	redirect := atPath("old", "shop", "/old")
	redirect.Spec.Ingress[0].Target, redirect.Spec.Ingress[0].Redirect = nil, &carav1.IngressRedirect{To: "/new", Code: 301}
	redirect.Spec.Ingress[0].Access = &carav1.IngressAccess{Allow: []string{"192.0.2.0/24"}}
	c.create(t, at("front", "shop"))
	c.create(t, redirect)
	const host = "shop.dev.example.test"
	routes := one.routes(func(r *carav1.Routes) bool { return len(r.GetHosts()) == 1 && len(r.GetHosts()[0].GetRoutes()) == 2 })
	if got := routes.GetHosts()[0]; got.GetHost() != host || got.GetRoutes()[0].GetProject() != "front" || got.GetRoutes()[0].GetPath() != "" ||
		got.GetRoutes()[1].GetPath() != "/old" || got.GetRoutes()[1].GetRedirect().GetTo() != "/new" || got.GetRoutes()[1].GetRedirect().GetCode() != 301 ||
		!slices.Equal(got.GetRoutes()[1].GetAllow(), []string{"192.0.2.0/24"}) || len(got.GetRoutes()[0].GetAllow()) > 0 {
		t.Errorf("routes %v", got)
	}
	if !slices.Equal(routes.GetRemovedHosts(), []string{host}) || len(routes.GetUpserts()) > 0 {
		t.Errorf("an agent of an older version would serve %v", routes)
	}
	projects := carav1.NewProjectServiceClient(c.admin(t))
	if _, err := projects.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: "old", NoWait: true}); err != nil {
		t.Fatal(err)
	}
	one.routes(func(r *carav1.Routes) bool {
		return len(r.GetUpserts()) == 1 && r.GetUpserts()[0].GetProject() == "front" && len(r.GetRemovedHosts()) == 0 && len(r.GetHosts()) == 0
	})
}
