package kind

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Route shows which project has which ingress host and path or port, and where the requests, connections and datagrams go. A route has no object: it follows from
// a project's spec and from the hosts that the project has claimed. Its name is the host with the path, or
// the port with its scope.
func Route() Kind {
	return Kind{
		Name: "Route", Plural: "routes",
		Columns: []string{"HOST", "PATH", "TO", "SCOPE", "TLS", "ALLOWED", "PROJECT", "PHASE", "NODE"},
		wide:    []string{"OWNER"},
		Row:     routeRow,
		List: func(ctx context.Context, conn grpc.ClientConnInterface, f Filter) ([]proto.Message, error) {
			l, err := carav1.NewProjectServiceClient(conn).ListProjects(ctx, &carav1.ListProjectsRequest{
				NodeRef: f.Node, Owner: f.Owner, LabelSelector: f.Selector,
			})
			return messages(Routes(l.GetItems(), f.Project), err)
		},
	}
}

// ProjectRoute is a Route and its project, of which the table shows the phase and the owner.
type ProjectRoute struct {
	*carav1.Route
	project *carav1.Project
	rule    *carav1.Ingress
	key     api.PortKey // of a port; empty for a host
}

// GetMetadata returns the name of the route.
func (r *ProjectRoute) GetMetadata() *carav1.ObjectMeta {
	if r.key.Port != 0 {
		return &carav1.ObjectMeta{Name: r.GetHost() + "/" + r.key.Scope}
	}
	return &carav1.ObjectMeta{Name: r.GetHost() + strings.TrimSuffix(r.GetPath(), "/")}
}

// Routes returns the claimed hosts and paths of projects, or of the project with this name, sorted by host and path.
func Routes(projects []*carav1.Project, only string) []*ProjectRoute {
	var all []*ProjectRoute
	for _, p := range projects {
		if only != "" && only != p.GetMetadata().GetName() {
			continue
		}
		for _, in := range p.GetSpec().GetIngress() {
			if host := claimedHost(p, in.GetHost()); host != "" {
				all = append(all, routeOf(p, in, host))
			}
		}
		for _, port := range p.GetSpec().GetPorts() {
			all = append(all, portRoute(p, port))
		}
	}
	slices.SortFunc(all, func(a, b *ProjectRoute) int {
		return cmp.Or(a.key.Compare(b.key), strings.Compare(a.GetHost(), b.GetHost()), strings.Compare(a.GetPath(), b.GetPath()))
	})
	return all
}

func routeOf(p *carav1.Project, in *carav1.Ingress, host string) *ProjectRoute {
	r := &ProjectRoute{project: p, rule: in, Route: &carav1.Route{
		Host: host, Path: api.IngressPath(in.GetPath()), Project: p.GetMetadata().GetName(), Node: p.GetStatus().GetNodeRef(),
		Service: in.GetTarget().GetService(), Port: in.GetTarget().GetPort(), Redirect: in.GetRedirect(), Allow: in.GetAccess().GetAllow(),
		PasswordList: in.GetAccess().GetBasicAuth().GetSecretRef(), Protocol: api.TargetProtocol(in.GetTarget()),
	}}
	if api.Public(in) {
		r.Scope, r.Tls = api.ScopePublic, in.GetTls()
	}
	return r
}

// portRoute returns the route of a port. In the place of a host it has the port: `tcp/5432`.
func portRoute(p *carav1.Project, port *carav1.ProjectPort) *ProjectRoute {
	k := api.KeyOfPort(port)
	rule := &carav1.Ingress{Access: &carav1.IngressAccess{Allow: port.GetAllow()}}
	return &ProjectRoute{project: p, rule: rule, key: k, Route: &carav1.Route{
		Host: fmt.Sprintf("%s/%d", strings.ToLower(k.Protocol), k.Port), Scope: k.Scope, Project: p.GetMetadata().GetName(), Node: p.GetStatus().GetNodeRef(),
		Service: port.GetTarget().GetService(), Port: port.GetTarget().GetPort(), Allow: port.GetAllow(),
	}}
}

// claimedHost returns the full host of a rule, or "" if the project has not claimed it. Only the server knows the domain of
// short hosts. But the claimed hosts that the spec does not name are its short hosts with that domain.
func claimedHost(p *carav1.Project, host string) string {
	claimed, host := p.GetStatus().GetHosts(), api.HostTemplate{}.Host(host)
	if slices.Contains(claimed, host) {
		return host
	}
	if strings.Contains(host, ".") {
		return ""
	}
	var found string
	for _, full := range claimed {
		if strings.HasPrefix(full, host+".") && (found == "" || !names(p, full)) {
			found = full
		}
	}
	return found
}

// names reports whether a project's spec has a host in full.
func names(p *carav1.Project, host string) bool {
	return slices.ContainsFunc(p.GetSpec().GetIngress(), func(in *carav1.Ingress) bool {
		return api.HostTemplate{}.Host(in.GetHost()) == host
	})
}

// scope formats whose clients can use the route.
func (r *ProjectRoute) scope() term.Cell {
	if r.key.Port != 0 {
		return term.Text(cmp.Or(r.GetScope(), api.ScopeInternal))
	}
	return scopeCell(r.project, r.rule)
}

func routeRow(m proto.Message, now time.Time) []term.Cell {
	r := m.(*ProjectRoute)
	return []term.Cell{
		term.Text(r.GetHost()), term.Text(r.GetPath()), term.Text(destination(r.GetService(), r.GetPort(), r.GetProtocol(), r.GetRedirect())),
		r.scope(), tlsCell(r.project, r.rule, now), allowedCell(r.project, r.rule), term.Text(r.GetProject()), PhaseCell(r.project, now), term.Text(r.GetNode()),
		term.Text(r.project.GetMetadata().GetOwner()),
	}
}
