package live

import (
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// maxNews limits the entries of one message, and so its size.
const maxNews = 500

// outboxes are those of all servers that follow this one.
type outboxes struct {
	mu  sync.Mutex
	all map[*Outbox]struct{}
}

// Outbox collects what this server has learned, for another server that follows it. An object is in it at most once, so it is never
// larger than the cluster.
type Outbox struct {
	// Wake has one entry while there is something to take.
	Wake chan struct{}

	state *State
	mu    sync.Mutex
	what  pending
}

// pending are the names of the objects with something new.
type pending struct {
	nodes    map[string]bool // true: also its info
	sources  map[string]bool
	volumes  map[string]bool // by uid
	complete bool            // the first state was taken
}

func newPending() pending {
	return pending{nodes: map[string]bool{}, sources: map[string]bool{}, volumes: map[string]bool{}}
}

// Follow adds an outbox, which has all that this server has learned. It collects until Unfollow.
func (s *State) Follow() *Outbox {
	o := &Outbox{Wake: make(chan struct{}, 1), state: s, what: newPending()}
	s.outboxes.mu.Lock()
	s.outboxes.all[o] = struct{}{}
	s.outboxes.mu.Unlock()
	// What is learned from here on is in the outbox already.
	for _, name := range slices.Concat(s.Beats.names(), s.Infos.names(), s.Inventories.names(), s.Agents.names()) {
		o.add(func(p *pending) { p.nodes[name] = true })
	}
	for _, name := range slices.Concat(s.Polls.names(), s.Hints.sources()) {
		o.add(func(p *pending) { p.sources[name] = true })
	}
	for _, uid := range s.Sizes.names() {
		o.add(func(p *pending) { p.volumes[uid] = true })
	}
	return o
}

// Unfollow removes an outbox.
func (s *State) Unfollow(o *Outbox) {
	s.outboxes.mu.Lock()
	defer s.outboxes.mu.Unlock()
	delete(s.outboxes.all, o)
}

func (b *outboxes) node(name string) {
	b.each(func(p *pending) {
		if _, there := p.nodes[name]; !there {
			p.nodes[name] = false
		}
	})
}
func (b *outboxes) info(name string)   { b.each(func(p *pending) { p.nodes[name] = true }) }
func (b *outboxes) source(name string) { b.each(func(p *pending) { p.sources[name] = true }) }
func (b *outboxes) volume(uid string)  { b.each(func(p *pending) { p.volumes[uid] = true }) }

func (b *outboxes) each(change func(*pending)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for o := range b.all {
		o.add(change)
	}
}

func (o *Outbox) add(change func(*pending)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change(&o.what)
	o.wake()
}

// wake fills Wake. mu must be held.
func (o *Outbox) wake() {
	select {
	case o.Wake <- struct{}{}:
	default:
	}
}

// Take returns the next message, and removes what it has from the outbox. more is true if there is another one. The last message
// of the first state says that it is complete.
func (o *Outbox) Take(now time.Time) (news *carav1.PeerNews, more bool) {
	o.mu.Lock()
	left := maxNews
	nodes := take(o.what.nodes, &left)
	sources, volumes := take(o.what.sources, &left), take(o.what.volumes, &left)
	more = len(o.what.nodes)+len(o.what.sources)+len(o.what.volumes) > 0
	news = &carav1.PeerNews{Synced: !more && !o.what.complete}
	o.what.complete = o.what.complete || !more
	o.mu.Unlock()
	for name, info := range nodes {
		if n := o.state.ownNode(name, info, now); n != nil {
			news.Nodes = append(news.Nodes, n)
		}
	}
	for name := range sources {
		if src := o.state.ownSource(name); src != nil {
			news.Sources = append(news.Sources, src)
		}
	}
	for uid := range volumes {
		if v, ok := o.state.Sizes.own(uid); ok {
			news.Volumes = append(news.Volumes, v)
		}
	}
	return news, more
}

// take removes at most left entries from a set, and returns them.
func take(from map[string]bool, left *int) map[string]bool {
	if len(from) <= *left {
		out := maps.Clone(from)
		clear(from)
		*left -= len(out)
		return out
	}
	out := make(map[string]bool, *left)
	for name, more := range from {
		if *left == 0 {
			break
		}
		out[name] = more
		delete(from, name)
		*left--
	}
	return out
}

// ownNode returns what this server has learned about a node; nil if it knows only what another server has said.
func (s *State) ownNode(name string, info bool, now time.Time) *carav1.PeerNode {
	beat, ok := s.Beats.own(name)
	if !ok {
		return nil
	}
	out := &carav1.PeerNode{Name: name, HeartbeatAge: durationpb.New(max(0, now.Sub(beat)))}
	if info {
		out.Info, _ = s.Infos.own(name)
	}
	out.Inventory, _ = s.Inventories.own(name)
	agent, _ := s.Agents.own(name)
	out.PublicIngress, out.Answering = agent.PublicIngress, agent.Answering
	return out
}

// ownSource returns what this server has learned about a source, or nil.
func (s *State) ownSource(name string) *carav1.PeerSource {
	poll, _ := s.Polls.own(name)
	last, hint := s.Hints.ofServer(name)
	if poll == nil && last == nil && hint == nil {
		return nil
	}
	return &carav1.PeerSource{Name: name, Poll: poll, Delivery: last, Hint: hint}
}

// Hear stores what another server has learned, where it is newer than what is known here.
func (s *State) Hear(from string, news *carav1.PeerNews, now time.Time) {
	for _, n := range news.GetNodes() {
		s.hearNode(from, n, now)
	}
	for _, src := range news.GetSources() {
		name := src.GetName()
		if poll := src.GetPoll(); poll != nil && !poll.GetLastTime().AsTime().Before(s.Polls.Of(name).GetLastTime().AsTime()) {
			s.Polls.hear(name, poll, from)
		}
		s.Hints.hear(origin{from, name}, src.GetDelivery(), src.GetHint())
	}
	for _, v := range news.GetVolumes() {
		if !v.GetSizeTime().AsTime().Before(s.Sizes.Of(v.GetUid()).GetSizeTime().AsTime()) {
			s.Sizes.hear(v.GetUid(), v, from)
		}
	}
}

// hearNode stores what another server knows about a node. A server that has heard of the node later knows more; what one server says
// comes in order.
func (s *State) hearNode(from string, n *carav1.PeerNode, now time.Time) {
	name, at := n.GetName(), now.Add(-n.GetHeartbeatAge().AsDuration())
	if beat, by := s.Beats.of(name); by != from && !at.After(beat) {
		return
	}
	s.Beats.hear(name, at, from)
	if n.GetInfo() != nil {
		s.Infos.hear(name, n.GetInfo(), from)
	}
	if n.GetInventory() {
		s.Inventories.hear(name, true, from)
	}
	s.Agents.hear(name, Agent{PublicIngress: n.GetPublicIngress(), Answering: n.GetAnswering()}, from)
}

// RestartTimeout gives a node of a lost server one more full time-out: its agent can have reached nobody since that server stopped.
func (s *State) RestartTimeout(node, lost string, now time.Time) {
	s.Beats.hear(node, now, lost)
	s.Agents.hear(node, Agent{}, lost)
}

// Leave notes that an agent is not connected to this server any more, unless another one has heard of it since.
func (s *State) Leave(node string) {
	if _, own := s.Agents.own(node); own {
		s.Agents.Note(node, Agent{})
	}
}

// Others returns what other servers have told about agents that are connected to them.
func (s *State) Others() map[string]Agent {
	s.Agents.mu.RLock()
	defer s.Agents.mu.RUnlock()
	out := map[string]Agent{}
	for name, agent := range s.Agents.last {
		if agent.from != "" {
			out[name] = agent.value
		}
	}
	return out
}
