package ingress

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caravanserai/cara/agent/ingress/ondemand"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// forgetEvery is how often hosts without requests are looked for.
const forgetEvery = time.Minute

// usage is when a host was last requested, in seconds of the clock. A nil usage records nothing.
type usage struct{ at atomic.Int64 }

// note records a request. It writes at most once a second, because all requests of a host share it.
func (u *usage) note() {
	if u == nil {
		return
	}
	if now := time.Now().Unix(); u.at.Load() != now {
		u.at.Store(now)
	}
}

// Capabilities returns what an agent with these listeners tells the server.
func (i *Ingress) Capabilities(on Listeners) []string {
	if i.ondemand == nil {
		return on.Capabilities()
	}
	return append(on.Capabilities(), api.CapabilityRoutesOnDemand)
}

// Begin returns the hosts that the first message of a new connection asks about: those in the table, and those that requests wait
// for. This method and the following ones are for an Ingress with OnDemand.
func (i *Ingress) Begin() []string {
	all := i.ondemand.Begin()
	for host, s := range i.table.Load().hosts {
		if !s.leadsTo(i.cfg.Node) { // the server sends those without a question
			all = append(all, host)
		}
	}
	return all
}

// leadsTo reports whether a route leads to a node.
func (s site) leadsTo(node string) bool {
	return slices.ContainsFunc(s, func(r *rule) bool { return r.Node == node })
}

// Connected notes that the server can be asked, or that it sends the routes of all hosts.
func (i *Ingress) Connected(onDemand bool) { i.ondemand.Connected(onDemand) }

// News is ready when Take returns something.
func (i *Ingress) News() <-chan struct{} { return i.ondemand.News() }

// Take returns the hosts for the next message to the server.
func (i *Ingress) Take() (ask, forget []string) { return i.ondemand.Take() }

// Ended notes that the server cannot be asked any more.
func (i *Ingress) Ended() { i.ondemand.Ended() }

// ask waits for the routes of a host. If there are none, it responds, except for a host that no project claims.
func (i *Ingress) ask(w *exchange, r *http.Request, host string) (known bool) {
	switch i.ondemand.Find(r.Context(), host, clientNetwork(w.client())) { //nolint:exhaustive // the other verbs are no results
	case ondemand.Known:
		return true
	case ondemand.Away:
		unavailable(w, r, fmt.Sprintf("Node %q does not know the host %s, and cannot ask the server now. Hosts that it knows are served.", i.cfg.Node, quoteHost(host)))
	case ondemand.Busy:
		unavailable(w, r, "Too many requests wait for hosts that this node does not know yet. Try again.")
	case ondemand.Late:
		if r.Context().Err() == nil {
			unavailable(w, r, fmt.Sprintf("Node %q does not know the host %s, and the server has not answered in time. Try again.", i.cfg.Node, quoteHost(host)))
		}
	}
	return false
}

// prepare waits for the routes and the certificate of a host that a client names in its handshake, if it is not in the table.
func (i *Ingress) prepare(ctx context.Context, host string, from net.Addr) {
	if _, ok := i.table.Load().hosts[host]; ok || i.ondemand == nil {
		return
	}
	client, _, err := net.SplitHostPort(from.String())
	if err != nil {
		client = from.String()
	}
	i.ondemand.Find(ctx, host, clientNetwork(client))
}

// expected returns a change without the hosts that the ingress has forgotten. mu is held.
func (i *Ingress) expected(change *carav1.Routes) *carav1.Routes {
	if i.ondemand == nil || change.GetFull() {
		return change
	}
	have := i.table.Load().hosts
	drop := func(host string, routes ...*carav1.Route) bool {
		host = strings.ToLower(host)
		here := slices.ContainsFunc(routes, func(r *carav1.Route) bool { return r.GetNode() == i.cfg.Node })
		return have[host] == nil && !here && !i.ondemand.Expects(host)
	}
	out := &carav1.Routes{Peers: change.GetPeers(), RemovedPeers: change.GetRemovedPeers(), RemovedHosts: change.GetRemovedHosts(), Ports: change.GetPorts()}
	out.Upserts = slices.DeleteFunc(slices.Clone(change.GetUpserts()), func(r *carav1.Route) bool { return drop(r.GetHost(), r) })
	ofHost := func(h *carav1.HostRoutes) bool { return drop(h.GetHost(), h.GetRoutes()...) }
	out.Hosts = slices.DeleteFunc(slices.Clone(change.GetHosts()), ofHost)
	out.FeatureHosts = slices.DeleteFunc(slices.Clone(change.GetFeatureHosts()), ofHost)
	out.UnknownHosts = slices.DeleteFunc(slices.Clone(change.GetUnknownHosts()), func(host string) bool { return drop(host) })
	return out
}

// answerQuestions lets requests go on that wait for hosts of a change that is in the table now. change has only expected hosts. mu is held.
func (i *Ingress) answerQuestions(change *carav1.Routes) {
	if i.ondemand == nil {
		return
	}
	var known []string
	for _, r := range change.GetUpserts() {
		known = append(known, strings.ToLower(r.GetHost()))
	}
	for _, h := range slices.Concat(change.GetHosts(), change.GetFeatureHosts()) {
		known = append(known, strings.ToLower(h.GetHost()))
	}
	i.ondemand.Answer(known, change.GetUnknownHosts())
	if len(i.table.Load().hosts) > i.ondemand.Limits().Held {
		i.forget()
	}
}

// keepUsage takes over when the hosts of a new table were used. mu is held.
func (i *Ingress) keepUsage(next *table) {
	if i.ondemand == nil {
		return
	}
	before := i.table.Load().used
	next.used = make(map[string]*usage, len(next.hosts))
	for host := range next.hosts {
		if next.used[host] = before[host]; next.used[host] == nil {
			next.used[host] = &usage{}
			next.used[host].note()
		}
	}
}

// forgetUnused forgets hosts without requests, until ctx ends.
func (i *Ingress) forgetUnused(ctx context.Context) {
	if i.ondemand == nil {
		return
	}
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		i.mu.Lock()
		i.forget()
		i.mu.Unlock()
	}
}

// forget removes hosts that are not needed from the table, except for those of this node's projects. mu is held.
func (i *Ingress) forget() {
	if !i.ondemand.MayForget() {
		return
	}
	old := i.table.Load()
	var hosts []ondemand.Host
	for host, s := range old.hosts {
		if !s.leadsTo(i.cfg.Node) {
			hosts = append(hosts, ondemand.Host{Name: host, Used: time.Unix(old.used[host].at.Load(), 0)})
		}
	}
	gone := ondemand.Expired(hosts, i.ondemand.Limits(), time.Now())
	if len(gone) == 0 {
		return
	}
	next := &table{hosts: make(map[string]site, len(old.hosts)), peers: old.peers, agents: map[string]string{}}
	maps.Copy(next.hosts, old.hosts)
	for _, host := range gone {
		delete(next.hosts, host)
	}
	i.replace(next)
	i.ondemand.Forget(gone)
	i.routesFile.Changed()
}
