package objects

import (
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Live is state that changes with every heartbeat, poll or delivery. It is kept in memory, not in the store, and added to
// answers.
type Live struct {
	Beats latest[time.Time]          // time of each node's last heartbeat
	Infos latest[*carav1.NodeInfo]   // last node info of each agent, such as free disk space
	Polls latest[*carav1.PollStatus] // last probe result of each source
	Sizes latest[*carav1.HeldVolume] // last measured size of each volume, by uid
	Hints *Hints

	Inventories latest[bool] // whether a node has sent an inventory of its volumes
	unseen      unseenVolumes
	started     time.Time
}

func newLive(started time.Time) *Live { return &Live{Hints: newHints(), started: started} }

// overlayProject adds the time of the last heartbeat to a project whose node is NotReady or gone. For other projects it
// returns the shared object unchanged.
func (s *Service) overlayProject(p *carav1.Project) *carav1.Project {
	ref := p.GetStatus().GetNodeRef()
	if ref == "" {
		return p
	}
	node, ok := state.Get[*carav1.Node](s.DB.Cache, ref)
	if ok && node.GetStatus().GetState() != api.NodeNotReady {
		return p
	}
	seen := s.Live.Beats.Of(ref)
	if seen.IsZero() {
		seen = node.GetStatus().GetLastHeartbeat().AsTime()
	}
	if seen.Unix() <= 0 {
		return p
	}
	out := proto.CloneOf(p)
	out.Status.LastSeen = timestamppb.New(seen)
	return out
}

// overlaySource adds the last poll and the last webhook delivery to a source.
func (s *Service) overlaySource(src *carav1.Source) *carav1.Source {
	poll, delivery := s.Live.Polls.Of(src.GetMetadata().GetName()), s.Live.Hints.of(src.GetMetadata().GetName())
	if poll == nil && delivery == nil {
		return src
	}
	out := proto.CloneOf(src)
	if out.Status == nil {
		out.Status = &carav1.SourceStatus{}
	}
	out.Status.Poll = &carav1.PollStatus{
		LastTime: poll.GetLastTime(), NextTime: poll.GetNextTime(), ObservedRevision: poll.GetObservedRevision(), LastDelivery: delivery,
	}
	return out
}

// OverlayNode returns a copy of a node with its live state. After a server restart, the last heartbeat of a Ready node is
// absent until the next one arrives, because the stored time of its last transition is outdated. A NotReady node keeps the
// stored time.
func (s *Service) OverlayNode(n *carav1.Node) *carav1.Node {
	name := n.GetMetadata().GetName()
	out := proto.CloneOf(n)
	if out.Status == nil {
		out.Status = &carav1.NodeStatus{}
	}
	out.Status.Projects = int32(len(s.DB.Cache.ProjectsOnNode(name)))
	if last := s.Live.Beats.Of(name); !last.IsZero() {
		out.Status.LastHeartbeat = timestamppb.New(last)
	} else if out.GetStatus().GetState() != api.NodeNotReady {
		out.Status.LastHeartbeat = nil
	}
	if info := s.Live.Infos.Of(name); info != nil {
		out.Status.Info = info
	}
	return out
}

// maxUnseen limits the volumes that are remembered after their deletion.
const maxUnseen = 1000

// unseenVolumes are the last volumes whose deletion ended before their node had ever reported them. The node may have made
// such a volume, but listed its volumes before: then a later inventory has it, and the deletion must go on.
type unseenVolumes struct {
	mu   sync.Mutex
	last []*carav1.Volume
}

func (u *unseenVolumes) note(volumes ...*carav1.Volume) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = append(u.last, volumes...)
	u.last = u.last[max(0, len(u.last)-maxUnseen):]
}

// of returns the volume of a node with this uid, or nil.
func (u *unseenVolumes) of(node, uid string) *carav1.Volume {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, v := range u.last {
		if v.GetStatus().GetNode() == node && v.GetMetadata().GetUid() == uid {
			return v
		}
	}
	return nil
}

// latest holds the newest value for each object of a kind. The values change with every heartbeat or poll and are not
// stored, so there are none after a restart. The zero value is ready to use.
type latest[V any] struct {
	mu   sync.RWMutex
	last map[string]V // by name; the values are immutable
}

func (l *latest[V]) Note(name string, v V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[string]V{}
	}
	l.last[name] = v
}

// Of returns the newest value since the server's start, or the zero value.
func (l *latest[V]) Of(name string) V {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last[name]
}

// Forget drops a deleted object.
func (l *latest[V]) Forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.last, name)
}
