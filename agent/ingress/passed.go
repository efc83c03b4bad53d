package ingress

import (
	"context"
	"net"
	"strings"

	"github.com/caravanserai/cara/agent/networks"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/sni"
)

// maxGreeting limits what is read of a client's first TLS message to find out which host it names. Those of browsers have about 2 KiB.
const maxGreeting = 16 << 10

// Passed returns the route of a host whose TLS connections are passed on and its access list, or nil. Public connections are passed
// on only to public routes.
func (t *routing) Passed(host string, public bool) (*carav1.Route, networks.List) {
	now := t.table.Load()
	s := now.hosts[host]
	now.used[host].note()
	if len(s) != 1 || s[0].GetProtocol() != api.TargetTLS || public && s[0].GetScope() != api.ScopePublic {
		return nil, networks.List{}
	}
	return s[0].Route, s[0].allow
}

// Passes reports whether a project has such a host.
func (t *routing) Passes(project string) bool { return t.table.Load().passes[project] }

// passing returns the projects with hosts whose TLS connections are passed on.
func passing(hosts map[string]site) map[string]bool {
	projects := map[string]bool{}
	for _, s := range hosts {
		if len(s) == 1 && s[0].GetProtocol() == api.TargetTLS {
			projects[s[0].GetProject()] = true
		}
	}
	return projects
}

// looksFor reports whether the name of a host matters before its handshake: the agent may have to ask for its routes and its
// certificate, or may pass the connection on.
func (i *Ingress) looksFor() bool {
	return i.ondemand != nil || i.cfg.Pass != nil && len(i.table.Load().passes) > 0
}

// peek reads the name of the host from the first TLS message of a client, and keeps the message for the next reader. It sets
// nothing if the name does not matter, or if the message makes no sense: then crypto/tls answers it.
func (e *entrance) peek(ctx context.Context, c *conn) {
	if c.first[0] != tlsRecord || e.at == publicHTTP || !e.ingress.looksFor() {
		return
	}
	if e.ingress.cfg.ProxyProtocolFrom.Has(c.Conn.RemoteAddr()) && !c.balanced {
		return // only another agent needs no PROXY header
	}
	host, read := sni.Peek(ctx, c, maxGreeting)
	c.first = read
	c.named = strings.TrimSuffix(host, ".")
}

// pass waits for the routes and the certificate of the host that a connection names, if the agent does not know it. Then it passes
// the connection on, until its end or that of ctx. It returns false if the host is not for that.
func (e *entrance) pass(ctx context.Context, c *conn) bool {
	if c.named == "" {
		return false
	}
	e.ingress.prepare(ctx, c.named, c.RemoteAddr())
	raw, ok := c.Conn.(*net.TCPConn)
	public := e.at == publicHTTPS
	if !ok || e.ingress.cfg.Pass == nil {
		return false
	}
	if route, _ := e.ingress.Passed(c.named, public); route == nil {
		return false
	}
	e.clients.leave(c) // it is counted by Pass, so that it takes no place of HTTP requests
	e.ingress.cfg.Pass(ctx, c.named, public, c.RemoteAddr(), raw, c.first)
	return true
}
