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
//   - Whatever a client or a service may hold has a bound (Limits), and nothing that is told of a request, in the
//     access log or in the metrics, makes it wait.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// hopHeader marks a request that another agent passed on, by that agent's node name.
const hopHeader = "X-Cara-Ingress-Hop"

// Config says whose ingress this is.
type Config struct {
	// Node is this node's name.
	Node string
	// Endpoint returns the address of a service that may get requests, on this node. It is told by release, once or more
	// often, that the request which it was asked for has ended.
	Endpoint func(project, service string) (ip string, release func(), ok bool)
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
	open       atomic.Int64 // clients' connections

	troubles logLimit

	mu      sync.Mutex    // serialises Apply
	told    bool          // the server has said what the table is
	changed chan struct{} // has one entry while the table is not on disk
}

// table is never changed once it is stored.
type table struct {
	hosts  map[string]*carav1.Route
	agents map[netip.Addr]bool // addresses that other agents' ingress answers at
}

// New returns an Ingress without routes.
func New(cfg Config) *Ingress {
	cfg.Limits = cfg.Limits.withDefaults()
	i := &Ingress{cfg: cfg, changed: make(chan struct{}, 1), transports: newTransports(cfg.Limits), access: newAccessLog(cfg.AccessLog, cfg.Node, cfg.Logger)}
	i.metrics = newMetrics(cfg.Metrics, func() float64 { return float64(i.open.Load()) }, func() float64 { return float64(i.access.lostLines()) })
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
	next := &table{hosts: map[string]*carav1.Route{}, agents: map[netip.Addr]bool{}}
	if !change.Full {
		maps.Copy(next.hosts, i.table.Load().hosts)
	}
	for _, host := range change.RemovedHosts {
		delete(next.hosts, strings.ToLower(host))
	}
	for _, r := range change.Upserts {
		next.hosts[strings.ToLower(r.Host)] = r
	}
	for _, r := range next.hosts {
		if addr, err := netip.ParseAddrPort(r.IngressAddress); err == nil && r.Node != i.cfg.Node {
			next.agents[addr.Addr().Unmap()] = true
		}
	}
	i.table.Store(next)
	i.metrics.route(next.hosts)
	i.cfg.Logger.Info("routes changed", "node", i.cfg.Node, "hosts", len(next.hosts))
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
	}
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
	err := srv.Serve(limit(l, i.cfg.Limits, &i.open))
	if stop() { // Serve ended by itself
		return fmt.Errorf("serve ingress on %s: %w", l.Addr(), err)
	}
	return <-drained
}

type backendKey struct{}

// backend is where one request goes.
type backend struct {
	route  *carav1.Route
	addr   string
	remote bool // addr is another agent's ingress

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
	switch ip, release, up := i.cfg.Endpoint(route.Project, route.Service); {
	case up:
		defer release()
		b.release = release
		b.addr = net.JoinHostPort(ip, strconv.Itoa(int(route.Port)))
	case route.Node != i.cfg.Node && route.IngressAddress != "" && r.Header.Get(hopHeader) == "":
		b.addr, b.remote = route.IngressAddress, true
	default:
		w.Header().Set("Retry-After", "1")
		page(w, r, http.StatusServiceUnavailable,
			fmt.Sprintf("Service %q of project %q is not ready.", route.Service, route.Project))
		return
	}
	i.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), backendKey{}, b)))
}

// answered lets go of a backend whose answer is a stream without an end.
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
	p.Out.Host = p.In.Host
	if exchangeOf(p.In).via != "" {
		for _, h := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
			p.Out.Header[h] = p.In.Header[h]
		}
	} else {
		p.SetXForwarded()
	}
	p.Out.Trailer = p.In.Trailer  // filled in when the body has been read: a copy would stay empty
	p.Out.Header.Del("X-Real-Ip") // services believe it, and anybody can say it
	p.Out.Header.Del(hopHeader)
	if b.remote {
		p.Out.Header.Set(hopHeader, i.cfg.Node)
	}
}

// fromAgent tells whether a request was passed on by another agent, whose word on the client is to be trusted.
func (i *Ingress) fromAgent(r *http.Request) bool {
	if r.Header.Get(hopHeader) == "" {
		return false
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && i.table.Load().agents[peer.Addr().Unmap()]
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
		return // the client went away
	}
	if unsaid, ok := i.troubles.say(time.Now()); ok {
		i.cfg.Logger.Warn("backend did not answer", "project", b.route.Project, "service", b.route.Service,
			"backend", b.addr, "error", err, "unsaid", unsaid)
	}
	status, what := http.StatusBadGateway, "did not answer"
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		status, what = http.StatusGatewayTimeout, "took too long to answer"
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
