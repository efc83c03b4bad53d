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

// Live is what changes with every heartbeat, poll or delivery. It stays in memory and out of the store, and is laid
// over answers.
type Live struct {
	Beats latest[time.Time]          // when each node was heard of
	Infos latest[*carav1.NodeInfo]   // what each agent said of its machine: free disk changes all the time
	Polls latest[*carav1.PollStatus] // what the probe of each source found
	Hints *Hints
}

func newLive() *Live { return &Live{Hints: newHints()} }

// overlayProject says how old a project's status is, where its node is not heard of. Nearly always that is nothing and
// the shared object goes out as it is.
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

// overlaySource lays the last poll and the last webhook over a source.
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

// OverlayNode is a node with what is kept in memory of it. The node itself is shared and stays as it is. The last
// heartbeat of a node that is there is absent until it is heard of after the server's start: what was stored with its
// last transition is old by then. For a node that is NotReady it is what there is.
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

// latest has the last word on each object of a kind: what changes with every heartbeat or poll, and is never stored for
// that. After a restart there is none yet. The zero value is ready.
type latest[V any] struct {
	mu   sync.RWMutex
	last map[string]V // by name; the values are not changed any more
}

func (l *latest[V]) Note(name string, v V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[string]V{}
	}
	l.last[name] = v
}

// Of returns the last word since the server's start; the zero value where there was none.
func (l *latest[V]) Of(name string) V {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last[name]
}

// Forget drops an object that is gone.
func (l *latest[V]) Forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.last, name)
}
