// Package ingress serves HTTP for every host in the cluster. It stands at the end of the straight line: what the
// agent brought up, a browser reaches here by host name. A host whose project runs on this node is proxied to the
// container; any other is proxied to the agent that has it.
//
// What must hold:
//
//   - The route table is swapped whole, by one atomic store: a request sees the old table or the new one, and a
//     swap breaks no connection that is already proxied.
//   - A backend is asked for at each request, and held until the request has ended. A service that drains has left the
//     endpoints before it gets its signal, so no new request reaches it, and those that it has may end. What has no end,
//     a WebSocket or a stream of events, holds nothing.
//   - A request crosses agents at most once. What arrives from another agent is answered here or not at all.
//   - Agents reach each other over mutual TLS only, and each verifies the other's node (agent/peer). What a request says
//     about its client is believed from a verified agent and from nobody else.
//   - A status is sent only where the service or this agent has answered. A request that ends otherwise breaks its
//     connection.
//   - Whatever a client or a service may hold has a bound (Limits), and nothing that is told of a request, in the
//     access log or in the metrics, makes it wait.
package ingress

import (
	"context"
	"crypto/tls"
	"errors"
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

	"github.com/caravanserai/cara/agent/peer"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Config says whose ingress this is.
type Config struct {
	// Node is this node's name.
	Node string
	// Endpoint returns the address of a service that may get requests, on this node. It is told by release, once or more
	// often, that the request which it was asked for has ended.
	Endpoint func(project, service string) (ip string, release func(), ok bool)
	// Peers secures connections to and from the other agents. Nil: no agent is known, and none is asked.
	Peers *peer.TLS
	// File keeps the route table over a restart, for hosts to be served while the server is away. Empty: nowhere.
	File string
	// AccessLog gets a line of JSON for each request. It is written by one goroutine, apart from the requests. Nil: none.
	AccessLog io.Writer
	// Metrics gets the metrics by project. Nil: nobody counts.
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
	clients    *connections

	troubles logLimit

	mu      sync.Mutex    // serialises Apply
	told    bool          // the server has said what the table is
	changed chan struct{} // has one entry while the table is not on disk
}

// table is never changed once it is stored.
type table struct {
	hosts  map[string]*carav1.Route
	peers  map[string]*carav1.Peer // by node
	agents map[string]string       // where the ingress of the other nodes' agents answers, by node
}

// New returns an Ingress without routes.
func New(cfg Config) *Ingress {
	cfg.Limits = cfg.Limits.withDefaults()
	i := &Ingress{
		cfg: cfg, changed: make(chan struct{}, 1), access: newAccessLog(cfg.AccessLog, cfg.Node, cfg.Logger),
		clients: newConnections(cfg.Limits, cfg.Logger),
	}
	i.transports = newTransports(cfg.Limits, i.dialPeer)
	i.metrics = newMetrics(cfg.Metrics, func() float64 { return float64(i.clients.count()) }, func() float64 { return float64(i.access.lostLines()) })
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

// Apply changes the table: all of it where the change is full, else the hosts that it names.
func (i *Ingress) Apply(change *carav1.Routes) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.told = true
	i.apply(change)
	select {
	case i.changed <- struct{}{}:
	default:
	}
}

// apply is called with mu held.
func (i *Ingress) apply(change *carav1.Routes) {
	next := &table{hosts: map[string]*carav1.Route{}, agents: map[string]string{}, peers: map[string]*carav1.Peer{}}
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
		next.hosts[strings.ToLower(r.Host)] = r
	}
	for _, r := range next.hosts {
		if r.Node != i.cfg.Node && r.IngressAddress != "" {
			next.agents[r.Node] = r.IngressAddress
		}
	}
	i.table.Store(next)
	i.metrics.route(next.hosts)
	i.cfg.Logger.Info("routes changed", "node", i.cfg.Node, "hosts", len(next.hosts))
}

// members tells the ends of connections between agents whose certificates are accepted.
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

// Run serves on the listener until ctx ends, then lets requests finish for up to 10 s.
func (i *Ingress) Run(ctx context.Context, l net.Listener) error {
	i.restore()
	var saver sync.WaitGroup
	defer saver.Wait()
	saving, stopSaving := context.WithCancel(ctx)
	defer stopSaving()
	saver.Go(func() { i.keepSaved(saving) })
	if i.access != nil {
		writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx)) // it has the last requests, too
		saver.Go(func() { i.access.run(writing) })
		defer stopWriting()
	}
	defer i.transports.close()
	srv := &http.Server{
		Handler:           i,
		ReadHeaderTimeout: i.cfg.Limits.Header,
		IdleTimeout:       i.cfg.Limits.Idle,
		MaxHeaderBytes:    i.cfg.Limits.HeaderBytes,
		ErrorLog:          slog.NewLogLogger(i.cfg.Logger.Handler(), slog.LevelDebug),
		ConnState:         i.clients.changed,
		Protocols:         new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	var peers *tls.Config
	if i.cfg.Peers != nil {
		peers = i.cfg.Peers.Accept()
	}
	in := newListener(l, i.cfg.Limits, i.clients, peers)
	saver.Go(in.run)
	defer in.end(net.ErrClosed)
	drained := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err := srv.Shutdown(drain)
		if errors.Is(err, context.DeadlineExceeded) {
			err = srv.Close() // an open WebSocket does not hold up the agent for longer
		}
		drained <- err
	})
	err := srv.Serve(in)
	if stop() { // Serve ended by itself
		return fmt.Errorf("serve ingress on %s: %w", l.Addr(), err)
	}
	return <-drained
}

type backendKey struct{}

// backend is where one request goes.
type backend struct {
	route  *carav1.Route
	addr   string // of the container; the node's name where remote
	remote bool   // another node's agent has it

	release func() // ends the hold on addr; nil for another agent's
}

// serve routes one request by its Host header.
func (i *Ingress) serve(w *exchange, r *http.Request) {
	t := i.table.Load()
	host := hostname(r.Host)
	route, ok := t.hosts[host]
	if !ok {
		page(w, r, http.StatusNotFound, "No project claims the host "+quoteHost(host)+".")
		return
	}
	i.found(w, route)
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
	i.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), backendKey{}, b)))
}

// unavailable answers a request that may be asked again soon.
func unavailable(w http.ResponseWriter, r *http.Request, text string) {
	w.Header().Set("Retry-After", "1")
	page(w, r, http.StatusServiceUnavailable, text)
}

// answered releases a backend whose answer is a stream without an end.
func answered(r *http.Response) error {
	b := r.Request.Context().Value(backendKey{}).(backend)
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
	}
	dropClaims(p.In.Trailer)     // those that were announced; body drops the others
	p.Out.Trailer = p.In.Trailer // filled in when the body has been read: a copy would stay empty
}

// failed answers a request whose backend did not.
func (i *Ingress) failed(w http.ResponseWriter, r *http.Request, err error) {
	b := r.Context().Value(backendKey{}).(backend)
	switch x := exchangeOf(r); {
	case x.stalled.Load():
		w.Header().Set("Connection", "close")
		page(w, r, http.StatusRequestTimeout, fmt.Sprintf("The request's body stood still for %s.", i.cfg.Limits.Stall))
		return
	case x.request.Context().Err() != nil:
		return // the client went away, or sends no more: its connection breaks
	}
	if unsaid, ok := i.troubles.say(time.Now()); ok {
		i.cfg.Logger.Warn("backend did not answer", "project", b.route.Project, "service", b.route.Service,
			"node", b.route.Node, "backend", b.addr, "error", err, "unsaid", unsaid)
	}
	if _, ok := errors.AsType[*unreachable](err); ok {
		unavailable(w, r, fmt.Sprintf("Project %q runs on node %q, which cannot be reached from node %q.", b.route.Project, b.route.Node, i.cfg.Node))
		return
	}
	status, what := http.StatusBadGateway, "did not answer"
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		status, what = http.StatusGatewayTimeout, "took too long to answer"
	}
	if b.remote {
		page(w, r, status, fmt.Sprintf("Node %q, which runs project %q, %s.", b.route.Node, b.route.Project, what))
		return
	}
	page(w, r, status, fmt.Sprintf("Service %q of project %q %s on port %d.", b.route.Service, b.route.Project, what, b.route.Port))
}

// hostname is the host part of a Host header, lower case, without port and trailing dot.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
