package dispatch

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// routeFeed keeps one agent's ingress table up to date. It records the names of projects that may have changed and computes
// their routes when it sends them, so it never records more names than there are projects.
type routeFeed struct {
	server *Dispatcher
	me     *Session
	feed

	dirty map[string]struct{} // projects that may have changed; guarded by mu
	nodes map[string]struct{} // nodes whose accepted certificates may have changed

	sending sync.Mutex                 // held while sending; guards the fields below
	table   routeTable                 // of all projects
	sent    map[string][]*carav1.Route // what the agent knows, by host
	peers   map[string]*carav1.Peer    // by node

	ports map[string]*carav1.ProjectPorts // what the agent knows, by project
	offer *carav1.PortOffer               // of the agent, when ports were last sent
}

func newRouteFeed(s *Dispatcher, me *Session) *routeFeed {
	return &routeFeed{
		server: s, me: me, feed: newFeed(), dirty: map[string]struct{}{}, nodes: map[string]struct{}{},
		table: newRouteTable(), sent: map[string][]*carav1.Route{}, peers: map[string]*carav1.Peer{},
		ports: map[string]*carav1.ProjectPorts{},
	}
}

// project records that the routes of a project may have changed.
func (f *routeFeed) project(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirty[name] = struct{}{}
	f.note()
}

// node records that the accepted certificates of a node may have changed.
func (f *routeFeed) node(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes[name] = struct{}{}
	f.note()
}

// full sends the whole table once, before any change. The goroutine that records projects calls it, so nothing is recorded
// during the call.
func (f *routeFeed) full() error {
	if err := f.flush(true); err != nil {
		return err
	}
	f.begin()
	return nil
}

// run sends changes until ctx ends.
func (f *routeFeed) run(ctx context.Context) error {
	return f.feed.run(ctx, func() error { return f.flush(false) })
}

// flush sends the difference to what was sent before.
func (f *routeFeed) flush(full bool) error {
	f.sending.Lock()
	defer f.sending.Unlock()
	f.mu.Lock()
	dirty, nodes := f.dirty, f.nodes
	f.dirty, f.nodes = map[string]struct{}{}, map[string]struct{}{}
	f.mu.Unlock()

	changed := map[string]struct{}{}
	for name := range dirty {
		f.table.put(name, f.server.routes(name, f.me.here), changed)
	}
	msg := &carav1.Routes{Full: full}
	for _, host := range slices.Sorted(maps.Keys(changed)) {
		f.flushHost(msg, host)
	}
	f.flushPeers(msg, nodes)
	f.flushPorts(msg, dirty)
	if !full && proto.Size(msg) == 0 {
		return nil
	}
	return f.me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Routes{Routes: msg}})
}

// flushHost adds the routes of a host if they differ from those that the agent knows. sending must be held.
func (f *routeFeed) flushHost(msg *carav1.Routes, host string) {
	now, old := f.table.host(host), f.sent[host]
	if slices.EqualFunc(now, old, func(a, b *carav1.Route) bool { return proto.Equal(a, b) }) {
		return
	}
	addHost(msg, host, now)
	if f.sent[host] = now; len(now) == 0 {
		delete(f.sent, host)
	}
}

// flushPeers adds the nodes whose accepted certificates differ from those that the agent knows. sending must be held.
func (f *routeFeed) flushPeers(msg *carav1.Routes, nodes map[string]struct{}) {
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		now, old := AcceptedPeer(f.server.DB.Cache, node), f.peers[node]
		switch {
		case now == nil && old != nil:
			msg.RemovedPeers = append(msg.RemovedPeers, node)
			delete(f.peers, node)
		case now != nil && !proto.Equal(now, old):
			msg.Peers = append(msg.Peers, now)
			f.peers[node] = now
		}
	}
}

// AcceptedPeer returns what other agents accept from a node, or nil if no certificate of the node is accepted. A renewed
// certificate stays accepted until the next renewal, so the earliest certificate counts.
func AcceptedPeer(r state.Reader, node string) *carav1.Peer {
	certificates, _ := state.List[*carav1.Token](r, identity.NodeTokenPrefix(node), "")
	var from time.Time
	for _, c := range certificates {
		if at := identity.NotBefore(c.GetExpireAt().AsTime()); from.IsZero() || at.Before(from) {
			from = at
		}
	}
	if from.IsZero() {
		return nil
	}
	return &carav1.Peer{Node: node, NotBefore: timestamppb.New(from)}
}

// routes returns what an agent gets about a project; here is true if the agent runs on the server's host. A host leads to
// its project from the claim until the deletion begins. The agent that runs a service knows whether the service answers,
// earlier than the server and also when the server is down. So a host without a service that answers is unavailable, not
// unknown.
func (d *Dispatcher) routes(name string, here bool) []*carav1.Route {
	p, ok := state.Get[*carav1.Project](d.DB.Cache, name)
	if !ok {
		return nil
	}
	st := p.GetStatus()
	if st.GetPhase() == api.PhaseTerminating || st.GetPhase() == api.PhaseTerminated {
		return nil
	}
	node, _ := state.Get[*carav1.Node](d.DB.Cache, st.GetNodeRef())
	var routes []*carav1.Route
	for _, in := range p.GetSpec().GetIngress() {
		host := d.DB.Hosts.Template.Host(in.GetHost())
		if !slices.Contains(st.GetHosts(), host) {
			continue
		}
		r := &carav1.Route{
			Host: host, Project: name, Service: in.GetTarget().GetService(), Port: in.GetTarget().GetPort(),
			Node: st.GetNodeRef(), IngressAddress: ingressAddress(node, here), Redirect: in.GetRedirect(), Allow: in.GetAccess().GetAllow(),
		}
		if path := api.IngressPath(in.GetPath()); path != api.DefaultIngressPath {
			r.Path = path
		}
		restrictRoute(r, in)
		routes = append(routes, r)
	}
	return routes
}

// restrictRoute sets who can use a route, and how.
func restrictRoute(r *carav1.Route, in *carav1.Ingress) {
	r.PasswordList = in.GetAccess().GetBasicAuth().GetSecretRef()
	r.Protocol = api.TargetProtocol(in.GetTarget())
	if api.Public(in) {
		r.Scope = api.ScopePublic
		r.Tls = &carav1.IngressTLS{Mode: in.GetTls().GetMode(), Hsts: in.GetTls().GetHsts()}
	}
	r.Features = api.RouteFeatures(r)
}
