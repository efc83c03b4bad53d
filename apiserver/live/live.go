// Package live holds what changes with every heartbeat, poll or delivery. It is in memory only: after a restart of the server it is
// empty until nodes and sources report again.
//
// Several servers tell each other what they have learned: see Outbox and Hear. Each tells only what it has learned itself, so that
// nothing goes in circles, and of two values for one object the newer one counts.
package live

import (
	"maps"
	"slices"
	"sync"
	"time"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// State changes with every heartbeat, poll or delivery. It is kept in memory, not in the store, and added to
// answers.
type State struct {
	Beats Latest[time.Time]          // time of each node's last heartbeat
	Infos Latest[*carav1.NodeInfo]   // last node info of each agent, such as free disk space
	Polls Latest[*carav1.PollStatus] // last probe result of each source
	Sizes Latest[*carav1.HeldVolume] // last measured size of each volume, by uid
	Hints *Hints

	Inventories Latest[bool]  // whether a node has sent an inventory of its volumes
	Agents      Latest[Agent] // what the connected agents can and do
	Unseen      UnseenVolumes
	Started     time.Time // of the server

	outboxes outboxes
}

// Agent is what a connected agent can and does. The zero value stands for one that is not connected.
type Agent struct {
	PublicIngress bool
	Answering     []string // tokens of the challenges that it answers; immutable
}

// New returns the state at the start of a server.
func New(started time.Time) *State {
	s := &State{Hints: NewHints(), Started: started, outboxes: outboxes{all: map[*Outbox]struct{}{}}}
	s.Beats.noted, s.Infos.noted, s.Agents.noted = s.outboxes.node, s.outboxes.info, s.outboxes.node
	s.Inventories.noted, s.Polls.noted, s.Sizes.noted = s.outboxes.node, s.outboxes.source, s.outboxes.volume
	s.Hints.noted = s.outboxes.source
	return s
}

// LastBeat returns when a node was last heard of, as the wall clock of now tells it, or the zero time. The clock may have been set since;
// then the age counts, which is monotonic. Otherwise a node would seem silent, and lose its projects, because a clock was set.
func (s *State) LastBeat(node string, now time.Time) time.Time {
	at := s.Beats.Of(node)
	if at.IsZero() {
		return at
	}
	return onClock(at.Round(0), now.Sub(at), now.Round(0))
}

// clockSlack is how much two readings may differ if nobody has set the clock.
const clockSlack = time.Second

// onClock returns the time that was age ago: at, unless the clock was set since.
func onClock(at time.Time, age time.Duration, now time.Time) time.Time {
	if told := now.Add(-age); told.Sub(at).Abs() > clockSlack {
		return told
	}
	return at
}

// ForgetNode drops what is known about a deleted node.
func (s *State) ForgetNode(name string) {
	s.Beats.Forget(name)
	s.Infos.Forget(name)
	s.Inventories.Forget(name)
	s.Agents.Forget(name)
}

// ForgetSource drops what is known about a deleted source.
func (s *State) ForgetSource(name string) {
	s.Polls.Forget(name)
	s.Hints.Forget(name)
}

// maxUnseen limits the volumes that are remembered after their deletion.
const maxUnseen = 1000

// UnseenVolumes are the last volumes whose deletion ended before their node had ever reported them. The node may have made
// such a volume, but listed its volumes before: then a later inventory has it, and the deletion must go on.
type UnseenVolumes struct {
	mu   sync.Mutex
	last []*carav1.Volume
}

// Note adds volumes, and forgets the oldest ones.
func (u *UnseenVolumes) Note(volumes ...*carav1.Volume) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = append(u.last, volumes...)
	u.last = u.last[max(0, len(u.last)-maxUnseen):]
}

// Of returns the volume of a node with this uid, or nil.
func (u *UnseenVolumes) Of(node, uid string) *carav1.Volume {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, v := range u.last {
		if v.GetStatus().GetNode() == node && v.GetMetadata().GetUid() == uid {
			return v
		}
	}
	return nil
}

// Latest holds the newest value for each object of a kind. The values change with every heartbeat or poll and are not
// stored, so there are none after a restart. The zero value is ready to use.
type Latest[V any] struct {
	noted func(name string) // hears of values that this server has learned; nil if nobody does

	mu   sync.RWMutex
	last map[string]learned[V] // by name; the values are immutable
}

// learned is a value, and the server that has learned it; "" is this one.
type learned[V any] struct {
	value V
	from  string
}

// Note stores a new value that this server has learned.
func (l *Latest[V]) Note(name string, v V) {
	l.set(name, v, "")
	if l.noted != nil {
		l.noted(name)
	}
}

// hear stores a value that another server has learned.
func (l *Latest[V]) hear(name string, v V, from string) { l.set(name, v, from) }

func (l *Latest[V]) set(name string, v V, from string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[string]learned[V]{}
	}
	l.last[name] = learned[V]{v, from}
}

// Of returns the newest value since the server's start, or the zero value.
func (l *Latest[V]) Of(name string) V {
	v, _ := l.of(name)
	return v
}

// of returns the newest value, and the server that has learned it.
func (l *Latest[V]) of(name string) (v V, from string) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	have := l.last[name]
	return have.value, have.from
}

// own returns the newest value if this server has learned it.
func (l *Latest[V]) own(name string) (v V, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	have, ok := l.last[name]
	if !ok || have.from != "" {
		return v, false
	}
	return have.value, true
}

// names returns the names of all objects that have a value.
func (l *Latest[V]) names() []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Collect(maps.Keys(l.last))
}

// Forget drops a deleted object.
func (l *Latest[V]) Forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.last, name)
}
