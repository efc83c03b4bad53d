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

// Hosts are what the agent asks the server for. They are nil without OnDemand.
func (t *routing) Hosts() *ondemand.Hosts { return t.ondemand }

// elsewhere returns the hosts in the table without those of this node's projects. The server sends the latter without a question.
func (t *routing) elsewhere() []string {
	var all []string
	for host, s := range t.table.Load().hosts {
		if !s.leadsTo(t.node) {
			all = append(all, host)
		}
	}
	return all
}

// leadsTo reports whether a route leads to a node.
func (s site) leadsTo(node string) bool {
	return slices.ContainsFunc(s, func(r *rule) bool { return r.Node == node })
}

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
func (t *routing) prepare(ctx context.Context, host string, from net.Addr) {
	if _, ok := t.table.Load().hosts[host]; ok || t.ondemand == nil {
		return
	}
	client, _, err := net.SplitHostPort(from.String())
	if err != nil {
		client = from.String()
	}
	t.ondemand.Find(ctx, host, clientNetwork(client))
}

// expected returns a change without the hosts that the ingress has forgotten. mu is held.
func (t *routing) expected(change *carav1.Routes) *carav1.Routes {
	if t.ondemand == nil || change.GetFull() {
		return change
	}
	have := t.table.Load().hosts
	drop := func(host string, routes ...*carav1.Route) bool {
		host = strings.ToLower(host)
		here := slices.ContainsFunc(routes, func(r *carav1.Route) bool { return r.GetNode() == t.node })
		return have[host] == nil && !here && !t.ondemand.Expects(host)
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
func (t *routing) answerQuestions(change *carav1.Routes) {
	if t.ondemand == nil {
		return
	}
	var known []string
	for _, r := range change.GetUpserts() {
		known = append(known, strings.ToLower(r.GetHost()))
	}
	for _, h := range slices.Concat(change.GetHosts(), change.GetFeatureHosts()) {
		known = append(known, strings.ToLower(h.GetHost()))
	}
	t.ondemand.Answer(known, change.GetUnknownHosts())
	if len(t.table.Load().hosts) > t.ondemand.Limits().Held {
		t.forget()
	}
}

// keepUsage takes over when the hosts of a new table were used. mu is held.
func (t *routing) keepUsage(next *table) {
	if t.ondemand == nil {
		return
	}
	before := t.table.Load().used
	next.used = make(map[string]*usage, len(next.hosts))
	for host := range next.hosts {
		if next.used[host] = before[host]; next.used[host] == nil {
			next.used[host] = &usage{}
			next.used[host].note()
		}
	}
}

// forgetUnused forgets hosts without requests, until ctx ends.
func (t *routing) forgetUnused(ctx context.Context) {
	if t.ondemand == nil {
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
		t.mu.Lock()
		t.forget()
		t.mu.Unlock()
	}
}

// forget removes hosts that are not needed from the table, except for those of this node's projects. mu is held.
func (t *routing) forget() {
	if !t.ondemand.MayForget() {
		return
	}
	old := t.table.Load()
	var hosts []ondemand.Host
	for host, s := range old.hosts {
		if !s.leadsTo(t.node) {
			hosts = append(hosts, ondemand.Host{Name: host, Used: time.Unix(old.used[host].at.Load(), 0)})
		}
	}
	gone := ondemand.Expired(hosts, t.ondemand.Limits(), time.Now())
	if len(gone) == 0 {
		return
	}
	next := &table{hosts: make(map[string]site, len(old.hosts)), peers: old.peers, agents: map[string]string{}}
	maps.Copy(next.hosts, old.hosts)
	for _, host := range gone {
		delete(next.hosts, host)
	}
	t.replace(next)
	t.ondemand.Forget(gone)
	t.routesFile.Changed()
}
