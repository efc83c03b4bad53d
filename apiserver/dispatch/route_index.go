package dispatch

import (
	"context"
	"slices"
	"sync"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// maxWanted limits the hosts of one agent: those of its node's projects, and those that it asks for. It is several times what an
// agent of this version keeps.
const maxWanted = 50_000

// RouteIndex knows the routes of all hosts, and which sessions need which. All sessions share its entries, so what a session
// costs depends on the hosts that its agent serves, and a change wakes only the sessions that it concerns.
//
// The mutex of a feed is locked inside that of the index, never the other way round.
type RouteIndex struct {
	mu      sync.Mutex
	rev     int64         // the index has processed all changes up to here
	moved   chan struct{} // closed when rev grows; nil if nobody waits
	table   routeTable
	entries map[string]*hostEntry // by host
	uses    ingressSecrets
	ports   map[string]struct{}   // projects with ports
	peers   map[string]*peerEntry // by node
	joined  routeParts            // all peers; nil if it must be made again
	digest  api.PeersDigest       // of all peers
	peerLog peerLog

	feeds  map[*routeFeed]struct{}
	byNode map[string]*routeFeed                  // the newest session of each node
	wanted map[string]map[*routeFeed]struct{}     // by host: the sessions on demand that need it
	entire map[*routeFeed]struct{}                // the sessions that get the routes of all hosts
	needed map[credential]map[*routeFeed]struct{} // the sessions on demand that need a credential
}

// NewRouteIndex returns an index that KeepRoutes fills.
func NewRouteIndex() *RouteIndex {
	return &RouteIndex{
		table: newRouteTable(), entries: map[string]*hostEntry{}, uses: newIngressSecrets(), ports: map[string]struct{}{}, peers: map[string]*peerEntry{},
		feeds: map[*routeFeed]struct{}{}, byNode: map[string]*routeFeed{}, wanted: map[string]map[*routeFeed]struct{}{},
		entire: map[*routeFeed]struct{}{}, needed: map[credential]map[*routeFeed]struct{}{},
	}
}

// KeepRoutes keeps the index of routes as the projects and nodes are, until ctx or the server ends.
func (d *Dispatcher) KeepRoutes(ctx context.Context) error {
	return keepFollowing(ctx, d.DB, "routes and assignments", func(rev int64) error {
		d.indexAll(rev)
		d.deliveries.all() // after an error, changes may have been missed
		return nil
	}, func(tx state.Transaction) error {
		d.deliveries.deliver(tx, d.DB.Cache.View())
		d.indexChanges(tx)
		return nil
	})
}

// indexAll processes the state that the cache has. It has reached a revision.
func (d *Dispatcher) indexAll(rev int64) {
	projects, nodes, x := state.List[*carav1.Project](d.DB.Cache, ""), state.List[*carav1.Node](d.DB.Cache, ""), d.Routes
	x.mu.Lock()
	defer x.mu.Unlock()
	names := x.table.projects() // those that are gone, too, after an error
	for _, p := range projects {
		names = append(names, p.GetMetadata().GetName())
	}
	d.update(names)
	for _, n := range nodes {
		x.setPeer(n.GetMetadata().GetName(), AcceptedPeer(d.DB.Cache, n.GetMetadata().GetName()))
	}
	x.reach(rev)
}

// indexChanges processes one transaction.
func (d *Dispatcher) indexChanges(tx state.Transaction) {
	d.Routes.mu.Lock()
	defer d.Routes.mu.Unlock()
	var projects []string
	for i := range tx.Changes {
		switch ch := &tx.Changes[i]; ch.Kind {
		case api.KindProject:
			projects = append(projects, ch.Name)
		case api.KindNode: // its address may have changed
			projects = append(projects, d.DB.Cache.View().ProjectsOnNode(ch.Name)...)
			if f := d.Routes.byNode[ch.Name]; f != nil {
				f.wake() // its offer of ports may have changed
			}
		case api.KindToken:
			if node, ok := identity.NodeOfToken(ch.Name); ok {
				d.Routes.setPeer(node, AcceptedPeer(d.DB.Cache, node))
			}
		default:
			d.Routes.credentialChanged(ch)
		}
	}
	d.update(projects)
	d.Routes.reach(tx.Rev)
}

// update computes the routes of projects again, and tells the sessions that a change concerns. The index is locked.
func (d *Dispatcher) update(projects []string) {
	x, changed, secrets := d.Routes, map[string]struct{}{}, map[string]struct{}{}
	for _, name := range projects {
		p, _ := state.Get[*carav1.Project](d.DB.Cache, name)
		x.table.put(name, d.routes(name), changed)
		for _, secret := range x.uses.put(name, p, d.DB.Hosts.Template) {
			secrets[secret] = struct{}{}
		}
		x.setPorts(name, len(p.GetSpec().GetPorts()) > 0)
	}
	for host := range changed {
		x.setHost(host, newHostEntry(host, x.table.host(host), x.uses))
	}
	for secret := range secrets { // other hosts may use them
		x.noteCredentials(ofSecret(secret)...)
	}
}

// noteCredentials tells the sessions that may need some credentials. x is locked.
func (x *RouteIndex) noteCredentials(all ...credential) {
	for _, c := range all {
		for f := range x.entire {
			f.noteCredentials(c)
		}
		for f := range x.needed[c] {
			f.noteCredentials(c)
		}
	}
}

// credentialChanged tells the sessions that may need what an object means for credentials. x is locked.
func (x *RouteIndex) credentialChanged(ch *state.Change) {
	switch ch.Kind {
	case api.KindSecret:
		x.noteCredentials(ofSecret(ch.Name)...)
	case state.KindCertificate:
		x.noteCredentials(credential{ch.Kind, ch.Name})
	case state.KindChallenge: // all agents with public addresses answer it
		for f := range x.feeds {
			f.noteCredentials(credential{ch.Kind, ch.Name})
		}
	case api.KindSource: // it may use a Secret that projects use
		old, now := state.As[*carav1.Source](ch.Old), state.As[*carav1.Source](ch.New)
		if slices.Equal(api.SourceSecretNames(old.GetSpec()), api.SourceSecretNames(now.GetSpec())) {
			return
		}
		for f := range x.feeds {
			f.noteAllSecrets()
		}
	}
}

// setHost replaces the entry of a host. The agents of the nodes that it leads to get it without asking. x is locked.
func (x *RouteIndex) setHost(host string, next *hostEntry) {
	old := x.entries[host]
	if old.same(next) {
		return
	}
	if x.entries[host] = next; next == nil {
		delete(x.entries, host)
	}
	for f := range x.entire {
		f.noteHost(host)
	}
	for _, node := range next.leadsTo() {
		x.want(x.byNode[node], host)
	}
	for f := range x.wanted[host] {
		f.noteHost(host)
	}
}

// want adds a host to those that a session on demand needs. x is locked.
func (x *RouteIndex) want(f *routeFeed, host string) {
	if f == nil || f.wants != wantsSome {
		return
	}
	addUnder(x.wanted, host, f)
	f.hosts[host] = struct{}{}
}

// forget removes a host from those that a session on demand needs. x is locked.
func (x *RouteIndex) forget(f *routeFeed, host string) {
	delete(f.hosts, host)
	removeUnder(x.wanted, host, f)
}

// addUnder adds a session to the set under a key.
func addUnder[K comparable](sets map[K]map[*routeFeed]struct{}, key K, f *routeFeed) {
	if sets[key] == nil {
		sets[key] = map[*routeFeed]struct{}{}
	}
	sets[key][f] = struct{}{}
}

// removeUnder removes a session from the set under a key.
func removeUnder[K comparable](sets map[K]map[*routeFeed]struct{}, key K, f *routeFeed) {
	if delete(sets[key], f); len(sets[key]) == 0 {
		delete(sets, key)
	}
}

func (x *RouteIndex) setPorts(project string, some bool) {
	_, had := x.ports[project]
	if some {
		x.ports[project] = struct{}{}
	} else {
		delete(x.ports, project)
	}
	if !some && !had {
		return
	}
	for f := range x.feeds {
		f.noteProject(project)
	}
}

// reach records that the index has processed all changes up to a revision. x is locked.
func (x *RouteIndex) reach(rev int64) {
	x.rev = max(x.rev, rev)
	if x.moved != nil {
		close(x.moved)
		x.moved = nil
	}
}

// enter adds a session, whose agent knows some hosts, when the index has reached a revision. From then on, the feed learns what
// changes; it has to send everything first.
func (x *RouteIndex) enter(ctx context.Context, f *routeFeed, rev int64, known []string, projects func() []string) error {
	for {
		x.mu.Lock()
		if x.rev >= rev {
			break
		}
		if x.moved == nil {
			x.moved = make(chan struct{})
		}
		moved := x.moved
		x.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-f.server.DB.Draining:
			return state.ErrDraining()
		}
	}
	defer x.mu.Unlock()
	x.feeds[f], x.byNode[f.me.Node] = struct{}{}, f
	if f.wants == wantsAll {
		x.entire[f] = struct{}{}
	}
	for _, name := range projects() {
		for _, host := range x.table.hostsOf(name) {
			x.want(f, host)
		}
	}
	if err := x.ask(f, known); err != nil {
		return err
	}
	f.noteAll(x)
	return nil
}

// leave removes a session.
func (x *RouteIndex) leave(f *routeFeed) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.feeds, f)
	delete(x.entire, f)
	for c := range f.needed { // nothing is sent any more
		removeUnder(x.needed, c, f)
	}
	if x.byNode[f.me.Node] == f {
		delete(x.byNode, f.me.Node)
	}
	for host := range f.hosts {
		x.forget(f, host)
	}
}

// ask adds hosts that an agent has asked for. x is locked.
func (x *RouteIndex) ask(f *routeFeed, hosts []string) error {
	for _, host := range hosts {
		x.want(f, host)
		f.noteHost(host)
	}
	if len(f.hosts) > maxWanted {
		return api.TooMany("the agent of node %q asks for the routes of more than %d hosts: start it with --ingress-all", f.me.Node, maxWanted)
	}
	return nil
}

// serves processes what an agent says about the hosts that it needs.
func (x *RouteIndex) serves(f *routeFeed, forgotten, asked []string) error {
	if f.wants != wantsSome {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, host := range forgotten {
		if !slices.Contains(x.entries[host].leadsTo(), f.me.Node) {
			x.forget(f, host)
			f.noteHost(host)
		}
	}
	return x.ask(f, asked)
}

// secretNames returns the Secrets that projects use for ingress.
func (x *RouteIndex) secretNames() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.uses.names()
}

// secretHosts returns the hosts for which projects use a Secret of type tls.
func (x *RouteIndex) secretHosts(secret string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.uses.hosts(secret)
}

// usesList reports whether a project uses a Secret of type basicAuth.
func (x *RouteIndex) usesList(secret string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.uses.lists[secret] > 0
}
