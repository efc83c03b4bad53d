package dispatch

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestRouteTable(t *testing.T) {
	route := func(host, path, project string) *carav1.Route {
		return &carav1.Route{Host: host, Path: path, Project: project}
	}
	table := newRouteTable()
	for i, step := range []struct {
		project string
		routes  []*carav1.Route
		changed []string
		want    map[string][]string // projects by host, in the order of their paths
	}{
		{"p", []*carav1.Route{route("a", "/x", "p"), route("a", "", "p"), route("b", "", "p")}, []string{"a", "b"}, map[string][]string{"a": {"p", "p"}, "b": {"p"}}},
		{"q", []*carav1.Route{route("a", "/q", "q")}, []string{"a"}, map[string][]string{"a": {"p", "q", "p"}, "b": {"p"}}},
		{"p", []*carav1.Route{route("a", "", "p")}, []string{"a", "b"}, map[string][]string{"a": {"p", "q"}}},
		// The path / changes from p to q, and the table hears of q first.
		{"q", []*carav1.Route{route("a", "", "q")}, []string{"a"}, map[string][]string{"a": {"p"}}},
		{"p", nil, []string{"a"}, map[string][]string{"a": {"q"}}},
		{"r", nil, nil, map[string][]string{"a": {"q"}}},
		{"q", nil, []string{"a"}, map[string][]string{}},
	} {
		changed := map[string]struct{}{}
		table.put(step.project, step.routes, changed)
		got := map[string][]string{}
		for host := range table.hosts {
			for _, r := range table.host(host) {
				got[host] = append(got[host], r.GetProject())
			}
		}
		if diff := cmp.Diff(step.want, got) + cmp.Diff(step.changed, slices.Sorted(maps.Keys(changed))); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
	}
	if len(table.hosts)+len(table.of) > 0 {
		t.Errorf("left over: %v %v", table.hosts, table.of)
	}
}

// An agent of an older version reads only upserts and removedHosts.
func TestAddHost(t *testing.T) {
	whole, path := &carav1.Route{Host: "a"}, &carav1.Route{Host: "a", Path: "/x"}
	redirect := &carav1.Route{Host: "a", Redirect: &carav1.IngressRedirect{To: "/x"}}
	limited := &carav1.Route{Host: "a", Allow: []string{"10.0.0.0/8"}}
	secured := &carav1.Route{Host: "a", Path: "/y", PasswordList: "people", Features: []string{api.FeatureBasicAuth}}
	hosts := func(routes ...*carav1.Route) *carav1.Routes {
		return &carav1.Routes{RemovedHosts: []string{"a"}, Hosts: []*carav1.HostRoutes{{Host: "a", Routes: routes}}}
	}
	for name, tt := range map[string]struct {
		routes []*carav1.Route
		want   *carav1.Routes
	}{
		"no route":       {nil, &carav1.Routes{RemovedHosts: []string{"a"}}},
		"all paths":      {[]*carav1.Route{whole}, &carav1.Routes{Upserts: []*carav1.Route{whole}}},
		"a path":         {[]*carav1.Route{path}, hosts(path)},
		"a redirect":     {[]*carav1.Route{redirect}, hosts(redirect)},
		"an access list": {[]*carav1.Route{limited}, hosts(limited)},
		// An agent that does not know the feature must not get the host's other routes either: they could have the path.
		"a password and others": {[]*carav1.Route{whole, secured}, &carav1.Routes{
			RemovedHosts: []string{"a"}, FeatureHosts: []*carav1.HostRoutes{{Host: "a", Routes: []*carav1.Route{whole, secured}}},
		}},
		"a path and others": {[]*carav1.Route{whole, path}, hosts(whole, path)},
	} {
		got := &carav1.Routes{}
		addHost(got, "a", tt.routes)
		if diff := cmp.Diff(tt.want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
