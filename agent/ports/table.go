package ports

import (
	"maps"
	"slices"

	"github.com/caravanserai/cara/agent/networks"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// table is immutable once it is stored.
type table struct {
	projects map[string]*carav1.ProjectPorts
	routes   map[api.PortKey]*route
}

// route is where the connections of one port go.
type route struct {
	project, service string
	port             int32  // of the service
	node, address    string // node that runs the project, and where its agent is reached
	allow            networks.List
}

// newTable joins the ports of projects. While a port changes from one project to another, both can have it, until the table
// has heard about both. Then the first project by name has the port.
func newTable(projects map[string]*carav1.ProjectPorts) *table {
	t := &table{projects: projects, routes: map[api.PortKey]*route{}}
	for _, name := range slices.Sorted(maps.Keys(projects)) {
		of := projects[name]
		for _, port := range of.GetPorts() {
			k := api.KeyOfPort(port)
			if _, taken := t.routes[k]; taken {
				continue
			}
			t.routes[k] = &route{
				project: name, service: port.GetTarget().GetService(), port: port.GetTarget().GetPort(),
				node: of.GetNode(), address: of.GetIngressAddress(), allow: networks.Parse(port.GetAllow()),
			}
		}
	}
	return t
}
