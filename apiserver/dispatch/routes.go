package dispatch

import (
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// wants says which routes an agent gets.
type wants int

const (
	wantsAll  wants = iota // those of all hosts
	wantsSome              // those of its node's projects, and of the hosts that it asks for
	wantsNone              // it serves no ingress
)

// wantsOf returns which routes an agent with some capabilities gets. Agents of older versions get all of them, also those without
// ingress.
func wantsOf(capabilities []string) wants {
	switch {
	case !slices.Contains(capabilities, api.CapabilityRoutesOnDemand):
		return wantsAll
	case slices.Contains(capabilities, api.CapabilityIngress):
		return wantsSome
	default:
		return wantsNone
	}
}

// peersPause is how long changes of peers are collected.
const peersPause = time.Second

// routeFeed keeps what one agent needs to serve ingress up to date: routes, the credentials for them, ports, and the certificates
// of other agents. The index records what may have changed, and the feed computes the message when it sends it. So it never
// records more than there is.
type routeFeed struct {
	server *Dispatcher
	me     *Session
	wants  wants
	hosts  map[string]struct{} // that the agent needs, if it wants some; guarded by the index
	feed

	changes              // guarded by mu
	peersNoted time.Time // when a change of peers last woke the feed; guarded by mu
	peersDue   bool      // a timer will wake the feed for changes of peers; guarded by mu

	sending sync.Mutex                       // held while sending; guards the fields below
	needs   map[string][]credential          // of the hosts that the agent needs, if it wants some
	needed  map[credential]int               // the number of these hosts
	sent    map[credential][sha256.Size]byte // the credentials that the agent has
	ports   map[string]*carav1.ProjectPorts  // what the agent knows, by project
	offer   *carav1.PortOffer                // of the agent, when ports were last sent
}

// changes are what may have changed since the last message.
type changes struct {
	newHosts    map[string]struct{}
	projects    map[string]struct{} // with ports
	nodes       map[string]struct{} // whose accepted certificates may have changed
	credentials map[credential]struct{}
	allSecrets  bool // a source uses a Secret now, or no longer
	allNodes    bool // the agent knows no node's certificates yet
}

func newChanges() changes {
	return changes{newHosts: map[string]struct{}{}, projects: map[string]struct{}{}, nodes: map[string]struct{}{}, credentials: map[credential]struct{}{}}
}

func newRouteFeed(s *Dispatcher, me *Session) *routeFeed {
	return &routeFeed{
		server: s, me: me, wants: wantsOf(me.capabilities), hosts: map[string]struct{}{}, feed: newFeed(), changes: newChanges(),
		needs: map[string][]credential{}, needed: map[credential]int{}, sent: map[credential][sha256.Size]byte{}, ports: map[string]*carav1.ProjectPorts{},
	}
}

func noted[K comparable](f *routeFeed, into func(*changes) map[K]struct{}, all ...K) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range all {
		into(&f.changes)[one] = struct{}{}
	}
	f.note()
}

// noteHost records that the routes of a host have changed, or that the agent has asked for them.
func (f *routeFeed) noteHost(host string) {
	noted(f, func(c *changes) map[string]struct{} { return c.newHosts }, host)
}

// noteProject records that the ports of a project may have changed.
func (f *routeFeed) noteProject(name string) {
	noted(f, func(c *changes) map[string]struct{} { return c.projects }, name)
}

// notePeer records that the accepted certificates of a node may have changed. The agent hears of the first change at once, and of
// those that follow within peersPause together: while many nodes join, each of their sessions gets a message in that time,
// not one for each node. A message about anything else has them, too, so a route never comes before its node's certificates.
func (f *routeFeed) notePeer(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes[node] = struct{}{}
	if f.peersDue {
		return
	}
	pause := peersPause - time.Since(f.peersNoted)
	if pause <= 0 {
		f.peersNoted = time.Now()
		f.note()
		return
	}
	f.peersDue = true
	f.server.Guard.After("routes", pause, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.peersDue, f.peersNoted = false, time.Now()
		f.note()
	})
}

// noteCredentials records that credentials may have changed.
func (f *routeFeed) noteCredentials(all ...credential) {
	noted(f, func(c *changes) map[credential]struct{} { return c.credentials }, all...)
}

// noteAll records everything that the agent has to know. x is locked.
func (f *routeFeed) noteAll(x *RouteIndex) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if maps.Copy(f.newHosts, f.hosts); f.wants == wantsAll {
		for host := range x.entries {
			f.newHosts[host] = struct{}{}
		}
	}
	f.allNodes = true
	maps.Copy(f.projects, x.ports)
}

// full sends everything once, before any change.
func (f *routeFeed) full(ctx context.Context, rev int64, known []string) error {
	projects := func() []string { return f.server.DB.Cache.View().ProjectsOnNode(f.me.Node) }
	if err := f.server.Routes.enter(ctx, f, rev, known, projects); err != nil {
		return err
	}
	f.noteAllCredentials()
	if err := f.flush(true); err != nil {
		return err
	}
	f.begin()
	return nil
}

// flush sends what has changed. Credentials come before the routes that need them.
func (f *routeFeed) flush(full bool) error {
	f.sending.Lock()
	defer f.sending.Unlock()
	f.mu.Lock()
	changed := f.changes
	f.changes = newChanges()
	f.mu.Unlock()
	msg := &carav1.Routes{Full: full}
	hosts := f.addHosts(msg, &changed)
	peers := f.addPeers(msg, &changed)
	f.flushPorts(msg, changed.projects)
	if err := f.sendCredentials(full, &changed); err != nil {
		return err
	}
	if !full && len(hosts)+len(peers)+proto.Size(msg) == 0 {
		return nil
	}
	return f.send(msg, slices.Concat(hosts, peers))
}

// addHosts adds the hosts without routes to a message, and the credentials that the agent needs now, or no longer, to changed. It
// returns the other hosts. sending must be held.
func (f *routeFeed) addHosts(msg *carav1.Routes, changed *changes) (fields routeParts) {
	if f.wants == wantsNone {
		return nil
	}
	x := f.server.Routes
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, host := range slices.Sorted(maps.Keys(changed.newHosts)) {
		entry := x.entries[host]
		_, wanted := f.hosts[host]
		if f.wants == wantsSome {
			f.need(host, entry, wanted, changed)
		}
		switch {
		case f.wants == wantsSome && !wanted: // the agent has forgotten it
		case entry != nil && f.me.here:
			fields.add(entry.here)
		case entry != nil:
			fields.add(entry.away)
		case f.wants == wantsSome:
			msg.UnknownHosts = append(msg.UnknownHosts, host)
		default:
			msg.RemovedHosts = append(msg.RemovedHosts, host)
		}
	}
	return fields
}

// need records which credentials the agent needs for a host. sending must be held, and the index locked.
func (f *routeFeed) need(host string, entry *hostEntry, wanted bool, changed *changes) {
	var now []credential
	if wanted && entry != nil {
		now = entry.needs
	}
	for _, c := range now {
		f.needed[c]++
		addUnder(f.server.Routes.needed, c, f)
		changed.credentials[c] = struct{}{}
	}
	for _, c := range f.needs[host] {
		if f.needed[c]--; f.needed[c] == 0 {
			delete(f.needed, c)
			removeUnder(f.server.Routes.needed, c, f)
		}
		changed.credentials[c] = struct{}{}
	}
	if f.needs[host] = now; len(now) == 0 {
		delete(f.needs, host)
	}
}

// routes returns what an agent on the server's host gets about a project. A host leads to
// its project from the claim until the deletion begins. The agent that runs a service knows whether the service answers,
// earlier than the server and also when the server is down. So a host without a service that answers is unavailable, not
// unknown.
func (d *Dispatcher) routes(name string) []*carav1.Route {
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
			Node: st.GetNodeRef(), IngressAddress: ingressAddress(node, true), Redirect: in.GetRedirect(), Allow: in.GetAccess().GetAllow(),
			Moving: st.GetMovedFrom() != "" || st.GetMove().GetStep() == api.MoveSwitching,
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
