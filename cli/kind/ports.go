package kind

import (
	"fmt"
	"strings"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/cli/term"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// PortText formats a port with its scope: `tcp/5432 (Internal)`.
func PortText(k api.PortKey) string {
	return fmt.Sprintf("%s/%d (%s)", strings.ToLower(k.Protocol), k.Port, k.Scope)
}

// ports shows where the connections and datagrams to a project's ports go, as the spec says it.
func (p Page) ports(ports []*carav1.ProjectPort) {
	table(p, "Ports", []string{"NAME", "PORT", "TO", "ALLOWED"}, ports, func(port *carav1.ProjectPort) []term.Cell {
		return []term.Cell{
			term.Text(port.GetName()), term.Text(PortText(api.KeyOfPort(port))),
			term.Text(destination(port.GetTarget().GetService(), port.GetTarget().GetPort(), "", nil)), term.Text(allowed(&carav1.IngressAccess{Allow: port.GetAllow()})),
		}
	})
}

// nodePorts shows which ports of projects a node opens.
func (p Page) nodePorts(n *carav1.Node) {
	table(p, "Ports", []string{"PORT", "PROJECT", "STATE"}, n.GetStatus().GetPorts(), func(port *carav1.NodePort) []term.Cell {
		state := "open"
		if port.GetProblem() != "" {
			state = "not open: " + port.GetProblem()
		}
		k := api.PortKey{Protocol: port.GetProtocol(), Port: port.GetPort(), Scope: port.GetScope()}
		return []term.Cell{term.Text(PortText(k)), term.Text(port.GetProject()), term.Text(state)}
	})
}

// offerText formats what a node offers to the ports of projects.
func offerText(o *carav1.PortOffer) string {
	var on []string
	for _, scope := range []string{api.ScopeInternal, api.ScopePublic} {
		if address := api.PortAddress(o, scope); address != "" {
			on = append(on, scope+" on "+address)
		}
	}
	if len(on) == 0 {
		return ""
	}
	return "ports " + strings.Join(o.GetPorts(), ", ") + " (" + strings.Join(on, ", ") + ")"
}

// OpenPorts returns the addresses of a project's ports on the nodes that have opened them: `tcp://n1:5432`.
func OpenPorts(p *carav1.Project, nodes []*carav1.Node) []string {
	var out []string
	for _, port := range p.GetSpec().GetPorts() {
		k := api.KeyOfPort(port)
		for _, n := range nodes {
			for _, has := range n.GetStatus().GetPorts() {
				if has.GetProject() == p.GetMetadata().GetName() && has.GetProblem() == "" && k == (api.PortKey{Protocol: has.GetProtocol(), Port: has.GetPort(), Scope: has.GetScope()}) {
					out = append(out, fmt.Sprintf("%s://%s:%d", strings.ToLower(k.Protocol), n.GetMetadata().GetName(), k.Port))
				}
			}
		}
	}
	return out
}
