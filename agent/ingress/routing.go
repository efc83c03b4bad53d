package ingress

import (
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caravanserai/cara/agent/ingress/ondemand"
	"github.com/caravanserai/cara/agent/kept"
	"github.com/caravanserai/cara/agent/peer"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// routing keeps the table of routes as the server tells it.
type routing struct {
	node       string
	peers      *peer.TLS // nil if there are no other agents
	log        *slog.Logger
	metrics    *metrics
	table      atomic.Pointer[table]
	ondemand   *ondemand.Hosts // nil if the server sends all routes
	routesFile *kept.File

	mu   sync.Mutex // serialises changes
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

func newRouting(cfg Config) *routing {
	t := &routing{node: cfg.Node, peers: cfg.Peers, log: cfg.Logger, routesFile: kept.New(cfg.File, "routes", cfg.Logger)}
	t.table.Store(&table{})
	if cfg.OnDemand != nil {
		t.ondemand = ondemand.New(*cfg.OnDemand, t.elsewhere, cfg.Metrics)
	}
	return t
}

// Apply changes the table: all of it if the change is full, otherwise only the hosts in it.
func (t *routing) Apply(change *carav1.Routes) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told = true
	change = t.expected(change)
	t.apply(change)
	t.answerQuestions(change)
	t.routesFile.Changed()
}

// apply builds and stores the new table. mu is held.
func (t *routing) apply(change *carav1.Routes) {
	next := &table{hosts: map[string]site{}, agents: map[string]string{}, peers: map[string]*carav1.Peer{}}
	if !change.Full {
		maps.Copy(next.hosts, t.table.Load().hosts)
	}
	if !change.Full || change.KeepPeers {
		maps.Copy(next.peers, t.table.Load().peers)
	}
	for _, node := range change.RemovedPeers {
		delete(next.peers, node)
	}
	for _, p := range change.Peers {
		next.peers[p.Node] = p
	}
	t.members(next.peers)
	for _, host := range change.RemovedHosts {
		delete(next.hosts, strings.ToLower(host))
	}
	before, now := t.table.Load().hosts, time.Now()
	put := func(host string, routes []*carav1.Route) { next.hosts[host] = newSite(routes).since(before[host], now) }
	for _, r := range change.Upserts {
		put(strings.ToLower(r.Host), []*carav1.Route{r})
	}
	for _, h := range change.Hosts {
		if len(h.Routes) > 0 {
			put(strings.ToLower(h.Host), h.Routes)
		}
	}
	for _, h := range change.FeatureHosts {
		delete(next.hosts, strings.ToLower(h.Host))
		if servable(h.Routes) {
			put(strings.ToLower(h.Host), h.Routes)
		}
	}
	for _, host := range change.UnknownHosts {
		delete(next.hosts, host)
	}
	t.replace(next)
	say := t.log.Info
	if t.ondemand != nil {
		say = t.log.Debug // clients cause the changes
	}
	say("routes changed", "node", t.node, "hosts", len(next.hosts))
}

// replace completes and stores a new table. mu is held.
func (t *routing) replace(next *table) {
	for _, s := range next.hosts {
		for _, r := range s {
			if r.Node != t.node && r.IngressAddress != "" {
				next.agents[r.Node] = r.IngressAddress
			}
		}
	}
	next.passes = passing(next.hosts)
	t.keepUsage(next)
	t.table.Store(next)
	t.metrics.route(next.hosts)
}

// PeersDigest identifies the peers in the table. It is nil if there are none.
func (t *routing) PeersDigest() []byte {
	peers := t.table.Load().peers
	if len(peers) == 0 {
		return nil
	}
	var all api.PeersDigest
	for _, p := range peers {
		all.Toggle(p)
	}
	return all[:]
}

// members sets which certificates of other agents are accepted.
func (t *routing) members(peers map[string]*carav1.Peer) {
	if t.peers == nil || t.peers.Members == nil {
		return
	}
	notBefore := make(map[string]time.Time, len(peers))
	for node, p := range peers {
		notBefore[node] = p.GetNotBefore().AsTime()
	}
	t.peers.Members.Set(notBefore)
}
