package dispatch

import (
	"cmp"
	"maps"
	"slices"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// routeTable joins the routes of projects by host. Several projects can have paths of the same host.
type routeTable struct {
	hosts map[string][]*carav1.Route // by host
	of    map[string][]*carav1.Route // by project
}

func newRouteTable() routeTable {
	return routeTable{hosts: map[string][]*carav1.Route{}, of: map[string][]*carav1.Route{}}
}

// put replaces the routes of a project, and adds the hosts that may have changed to changed.
func (t routeTable) put(project string, routes []*carav1.Route, changed map[string]struct{}) {
	for _, r := range t.of[project] {
		host := r.GetHost()
		changed[host] = struct{}{}
		rest := slices.DeleteFunc(slices.Clone(t.hosts[host]), func(other *carav1.Route) bool { return other.GetProject() == project })
		if t.hosts[host] = rest; len(rest) == 0 {
			delete(t.hosts, host)
		}
	}
	for _, r := range routes {
		changed[r.GetHost()] = struct{}{}
		t.hosts[r.GetHost()] = append(t.hosts[r.GetHost()], r)
	}
	if t.of[project] = routes; len(routes) == 0 {
		delete(t.of, project)
	}
}

// projects returns the projects that have routes.
func (t routeTable) projects() []string { return slices.Collect(maps.Keys(t.of)) }

// hostsOf returns the hosts of a project, some of them repeatedly.
func (t routeTable) hostsOf(project string) []string {
	var hosts []string
	for _, r := range t.of[project] {
		hosts = append(hosts, r.GetHost())
	}
	return hosts
}

// host returns the routes of a host, sorted by path. While a path changes from one project to another, both can have a route
// for it, until the table has heard about both. Then the first project by name has the path.
func (t routeTable) host(host string) []*carav1.Route {
	routes := slices.Clone(t.hosts[host])
	slices.SortFunc(routes, func(a, b *carav1.Route) int {
		return cmp.Or(cmp.Compare(a.GetPath(), b.GetPath()), cmp.Compare(a.GetProject(), b.GetProject()))
	})
	return slices.CompactFunc(routes, func(a, b *carav1.Route) bool { return a.GetPath() == b.GetPath() })
}

// addHost adds the routes of a host to a message. Agents of older versions know only upserts, which they would serve for all
// paths. So they get only routes that are as simple as that, and forget the other hosts. Newer ones know hosts, but none of the
// features.
func addHost(msg *carav1.Routes, host string, routes []*carav1.Route) {
	switch {
	case len(routes) == 0:
		msg.RemovedHosts = append(msg.RemovedHosts, host)
	case len(routes) == 1 && api.PlainRoute(routes[0]):
		msg.Upserts = append(msg.Upserts, routes[0])
	case slices.ContainsFunc(routes, func(r *carav1.Route) bool { return len(r.GetFeatures()) > 0 }):
		msg.RemovedHosts = append(msg.RemovedHosts, host)
		msg.FeatureHosts = append(msg.FeatureHosts, &carav1.HostRoutes{Host: host, Routes: routes})
	default:
		msg.RemovedHosts = append(msg.RemovedHosts, host)
		msg.Hosts = append(msg.Hosts, &carav1.HostRoutes{Host: host, Routes: routes})
	}
}
