// Package ingress serves HTTP for every host in the cluster. It is the last step after a push: browsers reach the running
// containers here by host name and path. If the project runs on this node, the request is proxied to the container, otherwise
// to the agent of the other node.
//
// Invariants:
//
//   - The route table is replaced by one atomic store: a request sees the old or the new table, and a replacement breaks no
//     connection that is already proxied.
//   - Each request acquires its backend and holds it until the request ends. A draining service is removed from the
//     endpoints before it gets its signal, so no new request reaches it and its current requests can finish. Endless
//     responses, such as WebSockets and event streams, hold nothing.
//   - A request is forwarded between agents at most once. A request from another agent is answered here or fails.
//   - Agents connect to each other only over mutual TLS, and each verifies the other's node (agent/peer). Headers about the
//     client are trusted only from a verified agent.
//   - The agent that a client connects to checks the scope and the access list, and so does the agent that runs the project.
//     Only the first one checks passwords.
//   - A public listener serves only routes with the scope Public, and answers for others as for hosts that do not exist.
//   - The table has the routes of all hosts, or those that the ingress needs (agent/ingress/ondemand). A host that is not in it is
//     unknown only if the server has said so.
//   - A request reaches a service only if every service would read its path as the route does (site).
//   - A status is sent only if the service or this agent has responded. Otherwise the connection is closed.
//   - A gRPC call gets its status from the service, or one of this agent that is never OK (calls).
//   - A request is sent again only if no service has seen it: because it was sent to none (sender), or as HTTP/2 can tell
//     (recording).
//   - While a request waits for another agent, that agent must accept new connections (peerWatch). An agent that is stopped holds no
//     request for long.
//   - Everything that a client or a service may occupy has a limit (Limits). The access log and the metrics never delay a
//     request.
package ingress

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/agent/ingress/basicauth"
	"github.com/caravanserai/cara/agent/ingress/ondemand"
	"github.com/caravanserai/cara/agent/kept"
	"github.com/caravanserai/cara/agent/peer"
	"github.com/caravanserai/cara/agent/proxyheader"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/loglimit"
)

// Config configures an Ingress.
type Config struct {
	// Node is this node's name.
	Node string
	// Endpoint returns the address of a service on this node that may receive requests. The ingress calls release, at least
	// once, when the request has ended.
	Endpoint func(project, service string) (ip string, release func(), ok bool)
	// Peers secures connections to and from other agents. If it is nil, there are none.
	Peers *peer.TLS
	// Volumes serves a connection on which another node sends a volume, and closes it. Optional.
	Volumes func(ctx context.Context, node string, conn net.Conn)
	// Ports serves a connection on which another node passes a client's connection to a port, and closes it. Optional.
	Ports func(ctx context.Context, node string, conn net.Conn)
	// Pass passes a TLS connection of a client on to the service of a host, and closes it. Optional. See agent/ports.
	Pass func(ctx context.Context, host string, public bool, from net.Addr, conn *net.TCPConn, begun []byte)
	// ProxyProtocolFrom are the load balancers whose PROXY headers say who the client is.
	ProxyProtocolFrom proxyheader.Senders
	// File stores the route table, so that hosts are served after a restart while the server is unreachable. Optional.
	File string
	// CredentialsFile stores the certificates and passwords, for the same reason. Optional.
	CredentialsFile string
	// AccessLog gets a JSON line for each request. A separate goroutine writes it. Optional.
	AccessLog io.Writer
	// OnDemand asks the server for routes when they are needed, within limits. Without it, the server sends the routes of all hosts.
	OnDemand *ondemand.Limits
	// Metrics registers the metrics by project. Optional.
	Metrics prometheus.Registerer
	Limits  Limits
	Logger  *slog.Logger
}

// Ingress routes requests by host name.
type Ingress struct {
	*routing

	cfg        Config
	proxy      *httputil.ReverseProxy
	transports *transports
	peerWatch  *peerWatch
	access     *accessLog
	internal   *entrance
	public     []*entrance // those of plain HTTP and of HTTPS
	securePort string      // where HTTPS is served, if it is not 443; written before anything is served
	passwords  *basicauth.Checker

	credentials     *credentials
	credentialsFile *kept.File

	troubles loglimit.Limit
	waiting  atomic.Int64 // requests for services that are not there yet
	recorded atomic.Int64 // bytes of bodies that are kept to send them again
}

// New returns an Ingress without routes.
func New(cfg Config) *Ingress {
	cfg.Limits = cfg.Limits.withDefaults()
	i := &Ingress{
		routing: newRouting(cfg),
		cfg:     cfg, access: newAccessLog(cfg.AccessLog, cfg.Node, cfg.Logger), credentials: newCredentials(), passwords: basicauth.New(nil),
		credentialsFile: kept.New(cfg.CredentialsFile, "credentials", cfg.Logger),
	}
	i.internal = newEntrance(i, insideHTTP)
	i.public = []*entrance{newEntrance(i, publicHTTP), newEntrance(i, publicHTTPS)}
	i.transports = newTransports(cfg.Limits, i.dialPeer)
	i.peerWatch = newPeerWatch(cfg.Limits.Check, i.dialPeer)
	i.metrics = newMetrics(cfg.Metrics, i.connected, func() float64 { return float64(len(i.table.Load().hosts)) }, func() float64 { return float64(i.access.lostLines()) })
	i.proxy = &httputil.ReverseProxy{
		Rewrite:        i.rewrite,
		Transport:      sender{i},
		FlushInterval:  flushAfter,
		BufferPool:     newBuffers(),
		ErrorHandler:   i.failed,
		ModifyResponse: answered,
		ErrorLog:       slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return i
}

// Run serves on the listeners until ctx ends, then lets requests finish for up to 10 s.
func (i *Ingress) Run(ctx context.Context, on Listeners) error {
	i.restore()
	var saver sync.WaitGroup
	defer saver.Wait()
	saving, stopSaving := context.WithCancel(ctx)
	defer stopSaving()
	saver.Go(func() { i.keepSaved(saving) })
	saver.Go(func() { i.forgetUnused(saving) })
	if i.access != nil {
		writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx to log the last requests
		saver.Go(func() { i.access.run(writing) })
		defer stopWriting()
	}
	defer i.transports.close()
	if on.PublicHTTPS != nil {
		if _, port, err := net.SplitHostPort(on.PublicHTTPS.Addr().String()); err == nil && port != "443" {
			i.securePort = port
		}
	}
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return i.internal.run(ctx, on.Internal) })
	for n, l := range []net.Listener{on.PublicHTTP, on.PublicHTTPS} {
		if l != nil {
			all.Go(func() error { return i.public[n].run(ctx, l) })
		}
	}
	return all.Wait()
}

// Requests returns how many requests for a service this ingress has handled, and false if no route leads to the service. The count
// begins again when the service gets its first route.
func (i *Ingress) Requests(project, service string) (count uint64, ok bool) {
	return i.metrics.passed(target{project, service})
}

// connected returns the number of open connections of clients.
func (i *Ingress) connected() float64 {
	n := i.internal.clients.count()
	for _, e := range i.public {
		n += e.clients.count()
	}
	return float64(n)
}

// backend is the destination of one request. It belongs to the request's goroutine.
type backend struct {
	*rule
	addr   string // of the container; the node's name if remote; empty if there is none
	remote bool   // on another node

	release func() // ends the hold on addr; nil if remote
	unwatch func() // ends the watch of the other node's agent; nil unless a request was sent to it
}

// done ends the hold on the container, or the watch of the other node's agent.
func (b *backend) done() {
	if b.release != nil {
		b.release()
	}
	if b.unwatch != nil {
		b.unwatch()
	}
	b.addr, b.remote, b.release, b.unwatch = "", false, nil, nil
}

// serve routes one request by its Host header and its path.
func (i *Ingress) serve(w *exchange, r *http.Request) {
	t := i.table.Load()
	host := hostname(r.Host)
	site, ok := t.hosts[host]
	switch {
	case ok:
		t.used[host].note()
	case i.ondemand != nil:
		if ok = i.ask(w, r, host); ok {
			t = i.table.Load()
			site, ok = t.hosts[host]
		} else if w.status != 0 || r.Context().Err() != nil {
			return
		}
	}
	public, onlyPublic := site.public()
	if !ok || w.public && !public {
		page(w, r, http.StatusNotFound, "No project claims the host "+quoteHost(host)+".")
		return
	}
	route, ok := site.route(r.URL)
	switch {
	case !ok && (!w.public || onlyPublic):
		page(w, r, http.StatusBadRequest, "The path can be read in several ways, which lead to different routes. Send it without "+
			`escaped slashes, backslashes, ";", and segments that are empty, "." or "..".`)
		return
	case !ok, route == nil, w.public && route.Scope != api.ScopePublic:
		page(w, r, http.StatusNotFound, "No project claims this path of the host "+quoteHost(host)+".")
		return
	}
	w.route = route.Route
	w.series = i.metrics.of(w)
	w.series.begin()
	if route.GetProtocol() == api.TargetH2C {
		allowSilence(r)
	}
	switch {
	case !route.allow.Has(w.client()):
		page(w, r, http.StatusForbidden, "Clients with the address "+strconv.QuoteToASCII(w.client())+" cannot use this host and path.")
	case w.at == publicHTTP && route.GetTls().GetMode() != api.TLSOff:
		i.toHTTPS(w, r)
	case route.GetProtocol() == api.TargetTLS:
		page(w, r, http.StatusMisdirectedRequest, fmt.Sprintf("Service %q of project %q has TLS itself. Open a connection with TLS to this host.", route.Service, route.Project))
	case !i.authenticated(w, r, route.Route):
	case route.Redirect != nil:
		redirect(w, r, route.Redirect)
	default:
		i.forward(w, r, route)
	}
}

// forward sends a request to the service of its route, or responds if the service cannot get it.
func (i *Ingress) forward(w *exchange, r *http.Request, to *rule) {
	if to.GetProtocol() == api.TargetH2C && r.Header.Get("Upgrade") != "" {
		page(w, r, http.StatusNotImplemented, fmt.Sprintf("Service %q of project %q has the protocol %s, which has no WebSockets and no other upgrades. "+
			"A rule for another path can lead to a port with the protocol %s.", to.Service, to.Project, api.TargetH2C, api.TargetHTTP))
		return
	}
	w.backend = &backend{rule: to}
	defer w.backend.done()
	i.proxy.ServeHTTP(w, r)
}

// answered releases the backend of an endless response.
func answered(r *http.Response) error {
	b := backendOf(r.Request)
	delete(r.Header, headerNotSent) // only agents say that, to each other
	if isCall(exchangeOf(r.Request).request) && r.ProtoMajor == 2 && isGRPC(r.Header) {
		r.Body = &callBody{ReadCloser: r.Body, response: r, x: exchangeOf(r.Request), backend: b.String()}
	}
	endless := r.StatusCode == http.StatusSwitchingProtocols || strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream")
	if endless && b.release != nil {
		b.release()
	}
	return nil
}

func (i *Ingress) rewrite(p *httputil.ProxyRequest) {
	p.Out.Host = p.In.Host
	dropClaims(p.Out.Header)
	if exchangeOf(p.In).via != "" {
		passClaims(p.Out.Header, p.In.Header)
	} else {
		p.SetXForwarded()
		if user := exchangeOf(p.In).user; user != "" {
			p.Out.Header.Set(headerUser, user)
		}
	}
	dropClaims(p.In.Trailer)     // the announced ones; body removes the others
	p.Out.Trailer = p.In.Trailer // filled in after the body is read, so a copy would stay empty
}

// hostname returns the host of a Host header in lower case, without port and trailing dot.
func hostname(host string) string {
	if strings.Contains(host, ":") { // most have no port, and the error about that would take memory
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
