package ports

import (
	"context"
	"net"

	"github.com/caravanserai/cara/agent/networks"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
	leave, ok := p.clients.enter(client)
	var err error
	if ok {
		defer leave()
	} else {
		err = errTooMany
	}
	p.serveClient(ctx, k, client, conn, begun, err)
}
