package ports

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/kept"
	"github.com/caravanserai/cara/agent/networks"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// routing knows where connections go now. The routes of ports come from the server, those of hosts from the ingress.
type routing struct {
	hosts   Hosts
	metrics *metrics
	file    *kept.File
	table   atomic.Pointer[table]
	wake    chan struct{} // has an entry while listeners may differ from the table

	mu       sync.Mutex
	told     bool          // the server has sent the table
	replaced chan struct{} // closed when the table is replaced
}

func newRouting(cfg Config, m *metrics) *routing {
	r := &routing{
		hosts: cfg.Hosts, metrics: m, file: kept.New(cfg.File, "ports", cfg.Logger),
		wake: make(chan struct{}, 1), replaced: make(chan struct{}),
	}
	r.table.Store(newTable(nil))
	return r
}

// apply changes the table as the server says.
func (r *routing) apply(change *carav1.Routes) {
	if !change.GetFull() && len(change.GetPorts()) == 0 {
		r.metrics.keep(r.table.Load().projects) // the hosts may have changed
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = true
	r.replace(change)
	r.file.Changed()
}

// restore loads the table of an earlier run, unless the server has already sent one.
func (r *routing) restore() {
	routes := &carav1.Routes{}
	if !r.file.Load(routes) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.told {
		r.replace(routes)
	}
}

// replace stores the new table. mu is held.
func (r *routing) replace(change *carav1.Routes) {
	projects := map[string]*carav1.ProjectPorts{}
	if !change.GetFull() {
		maps.Copy(projects, r.table.Load().projects)
	}
	for _, of := range change.GetPorts() {
		if projects[of.GetProject()] = of; len(of.GetPorts()) == 0 {
			delete(projects, of.GetProject())
		}
	}
	r.table.Store(newTable(projects))
	r.metrics.keep(projects)
	close(r.replaced)
	r.replaced = make(chan struct{})
	kick(r.wake)
}

// stored returns the whole table.
func (r *routing) stored() proto.Message {
	all := &carav1.Routes{Full: true}
	for _, of := range r.table.Load().projects {
		all.Ports = append(all.Ports, of)
	}
	return all
}

// changed returns a channel that is closed when the table is replaced.
func (r *routing) changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.replaced
}

// lookup returns where connections go, or nil.
func (r *routing) lookup(k key) *route {
	if k.Protocol != api.TargetTLS {
		return r.table.Load().routes[k.PortKey]
	}
	if r.hosts == nil {
		return nil
	}
	to, allow := r.hosts.Passed(k.host, k.Scope == api.ScopePublic)
	if to == nil {
		return nil
	}
	return &route{
		project: to.GetProject(), service: to.GetService(), port: to.GetPort(),
		node: to.GetNode(), address: to.GetIngressAddress(), allow: allow,
	}
}

// route returns the route of a port if the client may use it. With errNotAllowed it also returns the route.
func (r *routing) route(k key, client netip.Addr) (*route, error) {
	to := r.lookup(k)
	switch {
	case to == nil:
		return nil, errNoRoute
	case !to.allow.Has(client.String()):
		return to, errNotAllowed
	}
	return to, nil
}

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

// Hosts are the hosts whose TLS connections are passed on unchanged. The ingress accepts these connections and reads which host
// the client names. From then on they are like connections to a port.
type Hosts interface {
	// Passed returns the route of a host and its access list, or nil if its connections are not passed on. Public connections are
	// passed on only to public routes.
	Passed(host string, public bool) (*carav1.Route, networks.List)
	// Passes reports whether a project has such a host.
	Passes(project string) bool
}

// key identifies where clients connect to.
type key struct {
	api.PortKey
	host string // in the place of a port; empty for a port
}

func (k key) String() string {
	if k.host != "" {
		return "TLS host " + k.host + " (" + k.Scope + ")"
	}
	return k.PortKey.String()
}

// Pass passes a TLS connection on to the service of a host, and closes it. begun is what was read of it. from is the client.
func (p *Ports) Pass(ctx context.Context, host string, public bool, from net.Addr, conn *net.TCPConn, begun []byte) {
	defer conn.Close()
	k := key{api.PortKey{Protocol: api.TargetTLS, Scope: api.ScopeInternal}, host}
	if public {
		k.Scope = api.ScopePublic
	}
	client := addressOf(from)
	leave, ok := p.enter(client)
	var err error
	if ok {
		defer leave()
	} else {
		err = errTooMany
	}
	p.serveClient(ctx, k, client, conn, begun, err)
}
