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
//   - A request with a body is sent again only if the service has not seen it, as HTTP/2 can tell (repeatable).
//   - Everything that a client or a service may occupy has a limit (Limits). The access log and the metrics never delay a
//     request.
package ingress

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/agent/ingress/basicauth"
	"github.com/caravanserai/cara/agent/ingress/ondemand"
	"github.com/caravanserai/cara/agent/kept"
	"github.com/caravanserai/cara/agent/peer"
	"github.com/caravanserai/cara/agent/proxyheader"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
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

// Ingress is an http.Handler that routes by host name.
type Ingress struct {
	cfg        Config
	table      atomic.Pointer[table]
	proxy      *httputil.ReverseProxy
	transports *transports
	access     *accessLog
	metrics    *metrics
	internal   *entrance
	public     []*entrance // those of plain HTTP and of HTTPS
	securePort string      // where HTTPS is served, if it is not 443; written before anything is served
	passwords  *basicauth.Checker

	credentials     *credentials
	routesFile      *kept.File
	credentialsFile *kept.File

	troubles loglimit.Limit

	ondemand *ondemand.Hosts // nil if the server sends all routes

	mu   sync.Mutex // serialises Apply
	told bool       // the server has sent the table
}

// table is immutable once it is stored.
type table struct {
	hosts  map[string]site         // by host in lower case
	used   map[string]*usage       // the same hosts, if routes come on demand
	peers  map[string]*carav1.Peer // by node
	agents map[string]string       // ingress addresses of other nodes' agents, by node
	passes map[string]bool         // the projects with hosts whose TLS connections are passed on
}

// New returns an Ingress without routes.
func New(cfg Config) *Ingress {
	cfg.Limits = cfg.Limits.withDefaults()
	i := &Ingress{
		cfg: cfg, access: newAccessLog(cfg.AccessLog, cfg.Node, cfg.Logger), credentials: newCredentials(), passwords: basicauth.New(nil),
		routesFile: kept.New(cfg.File, "routes", cfg.Logger), credentialsFile: kept.New(cfg.CredentialsFile, "credentials", cfg.Logger),
	}
	if cfg.OnDemand != nil {
		i.ondemand = ondemand.New(*cfg.OnDemand, cfg.Metrics)
	}
	i.internal = newEntrance(i, insideHTTP)
	i.public = []*entrance{newEntrance(i, publicHTTP), newEntrance(i, publicHTTPS)}
	i.transports = newTransports(cfg.Limits, i.dialPeer)
	i.metrics = newMetrics(cfg.Metrics, i.connected, func() float64 { return float64(len(i.table.Load().hosts)) }, func() float64 { return float64(i.access.lostLines()) })
	i.table.Store(&table{})
	i.proxy = &httputil.ReverseProxy{
		Rewrite:        i.rewrite,
		Transport:      i.transports,
		FlushInterval:  flushAfter,
		BufferPool:     newBuffers(),
		ErrorHandler:   i.failed,
		ModifyResponse: answered,
		ErrorLog:       slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return i
}

// Apply changes the table: all of it if the change is full, otherwise only the hosts in it.
func (i *Ingress) Apply(change *carav1.Routes) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.told = true
	change = i.expected(change)
	i.apply(change)
	i.answerQuestions(change)
	i.routesFile.Changed()
}

// apply builds and stores the new table. mu is held.
func (i *Ingress) apply(change *carav1.Routes) {
	next := &table{hosts: map[string]site{}, agents: map[string]string{}, peers: map[string]*carav1.Peer{}}
	if !change.Full {
		maps.Copy(next.hosts, i.table.Load().hosts)
		maps.Copy(next.peers, i.table.Load().peers)
	}
	for _, node := range change.RemovedPeers {
		delete(next.peers, node)
	}
	for _, p := range change.Peers {
		next.peers[p.Node] = p
	}
	i.members(next.peers)
	for _, host := range change.RemovedHosts {
		delete(next.hosts, strings.ToLower(host))
	}
	for _, r := range change.Upserts {
		next.hosts[strings.ToLower(r.Host)] = newSite([]*carav1.Route{r})
	}
	for _, h := range change.Hosts {
		if len(h.Routes) > 0 {
			next.hosts[strings.ToLower(h.Host)] = newSite(h.Routes)
		}
	}
	for _, h := range change.FeatureHosts {
		delete(next.hosts, strings.ToLower(h.Host))
		if servable(h.Routes) {
			next.hosts[strings.ToLower(h.Host)] = newSite(h.Routes)
		}
	}
	for _, host := range change.UnknownHosts {
		delete(next.hosts, host)
	}
	i.replace(next)
	say := i.cfg.Logger.Info
	if i.ondemand != nil {
		say = i.cfg.Logger.Debug // clients cause the changes
	}
	say("routes changed", "node", i.cfg.Node, "hosts", len(next.hosts))
}

// replace completes and stores a new table. mu is held.
func (i *Ingress) replace(next *table) {
	for _, s := range next.hosts {
		for _, r := range s {
			if r.Node != i.cfg.Node && r.IngressAddress != "" {
				next.agents[r.Node] = r.IngressAddress
			}
		}
	}
	next.passes = passing(next.hosts)
	i.keepUsage(next)
	i.table.Store(next)
	i.metrics.route(next.hosts)
}

// members sets which certificates of other agents are accepted.
func (i *Ingress) members(peers map[string]*carav1.Peer) {
	if i.cfg.Peers == nil || i.cfg.Peers.Members == nil {
		return
	}
	notBefore := make(map[string]time.Time, len(peers))
	for node, p := range peers {
		notBefore[node] = p.GetNotBefore().AsTime()
	}
	i.cfg.Peers.Members.Set(notBefore)
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

// connected returns the number of open connections of clients.
func (i *Ingress) connected() float64 {
	n := i.internal.clients.count()
	for _, e := range i.public {
		n += e.clients.count()
	}
	return float64(n)
}

type backendKey struct{}

// backend is the destination of one request.
type backend struct {
	route  *carav1.Route
	addr   string // of the container; the node's name if remote
	remote bool   // on another node

	release func() // ends the hold on addr; nil if remote
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
	i.found(w, route.Route)
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
		i.forward(w, r, t, route.Route)
	}
}

// forward sends a request to the service of its route, or responds if the service cannot get it.
func (i *Ingress) forward(w *exchange, r *http.Request, t *table, route *carav1.Route) {
	b := backend{route: route}
	ip, release, up := i.cfg.Endpoint(route.Project, route.Service)
	switch {
	case up:
		defer release()
		b.release = release
		b.addr = net.JoinHostPort(ip, strconv.Itoa(int(route.Port)))
	case route.Node == i.cfg.Node || route.Node == "" || w.via != "":
		unavailable(w, r, fmt.Sprintf("Service %q of project %q is not ready.", route.Service, route.Project))
		return
	case t.agents[route.Node] == "":
		unavailable(w, r, fmt.Sprintf("Project %q runs on node %q, whose agent has no ingress address.", route.Project, route.Node))
		return
	default:
		b.addr, b.remote = route.Node, true
	}
	if route.GetProtocol() == api.TargetH2C && r.Header.Get("Upgrade") != "" {
		page(w, r, http.StatusNotImplemented, fmt.Sprintf("Service %q of project %q has the protocol %s, which has no WebSockets and no other upgrades. "+
			"A rule for another path can lead to a port with the protocol %s.", route.Service, route.Project, api.TargetH2C, api.TargetHTTP))
		return
	}
	i.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), backendKey{}, b)))
}

// answered releases the backend of an endless response.
func answered(r *http.Response) error {
	b := r.Request.Context().Value(backendKey{}).(backend)
	if isCall(exchangeOf(r.Request).request) && r.ProtoMajor == 2 && isGRPC(r.Header) {
		r.Body = &callBody{ReadCloser: r.Body, response: r, x: exchangeOf(r.Request), backend: b}
	}
	endless := r.StatusCode == http.StatusSwitchingProtocols || strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream")
	if endless && b.release != nil {
		b.release()
	}
	return nil
}

func (i *Ingress) rewrite(p *httputil.ProxyRequest) {
	b := p.In.Context().Value(backendKey{}).(backend)
	p.Out.URL.Scheme, p.Out.URL.Host = "http", b.addr
	if b.remote {
		p.Out.URL.Scheme = "https"
	}
	p.Out.Host = p.In.Host
	dropClaims(p.Out.Header)
	if exchangeOf(p.In).via != "" {
		passClaims(p.Out.Header, p.In.Header)
	} else {
		p.SetXForwarded()
		claimFirst(p.Out.Header, exchangeOf(p.In), b.remote)
	}
	dropClaims(p.In.Trailer)     // the announced ones; body removes the others
	p.Out.Trailer = p.In.Trailer // filled in after the body is read, so a copy would stay empty
}

// hostname returns the host of a Host header in lower case, without port and trailing dot.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
