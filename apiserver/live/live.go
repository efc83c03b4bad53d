// Package live holds what changes with every heartbeat, poll or delivery. It is in memory only: after a restart of the server it is
// empty until nodes and sources report again.
package live

import (
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

	Inventories Latest[bool] // whether a node has sent an inventory of its volumes
	Unseen      UnseenVolumes
	Started     time.Time // of the server
}

// New returns the state at the start of a server.
func New(started time.Time) *State { return &State{Hints: NewHints(), Started: started} }

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
	mu   sync.RWMutex
	last map[string]V // by name; the values are immutable
}

// Note stores a new value.
func (l *Latest[V]) Note(name string, v V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[string]V{}
	}
	l.last[name] = v
}

// Of returns the newest value since the server's start, or the zero value.
func (l *Latest[V]) Of(name string) V {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last[name]
}

// Forget drops a deleted object.
func (l *Latest[V]) Forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.last, name)
}
