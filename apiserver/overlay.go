package apiserver

import (
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// beats has when each node was last heard of. It changes with every heartbeat, so it is never stored: after a restart
// nobody has been heard of yet.
type beats struct {
	mu   sync.RWMutex
	last map[string]time.Time
}

// note records a sign of life.
func (b *beats) note(node string, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil {
		b.last = map[string]time.Time{}
	}
	b.last[node] = at
}

// of returns the last sign of life of a node since the server's start; zero where there was none.
func (b *beats) of(node string) time.Time {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.last[node]
}

// forget drops a node that is gone.
func (b *beats) forget(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.last, node)
}

// polls has what the last probe of each source found. It changes with every poll, so it is never stored.
type polls struct {
	mu   sync.RWMutex
	last map[string]*carav1.PollStatus
}

func (p *polls) note(source string, poll *carav1.PollStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.last = map[string]*carav1.PollStatus{}
	}
	p.last[source] = poll
}

func (p *polls) of(source string) *carav1.PollStatus {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.last[source]
}

func (p *polls) forget(source string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, source)
}

// overlayProject says how old a project's status is, where its node is not heard of. Nearly always that is nothing and
// the shared object goes out as it is.
func (s *Server) overlayProject(p *carav1.Project) *carav1.Project {
	ref := p.GetStatus().GetNodeRef()
	if ref == "" {
		return p
	}
	node, ok := lookup[*carav1.Node](s.cache, ref)
	if ok && node.GetStatus().GetState() != api.NodeNotReady {
		return p
	}
	seen := s.beats.of(ref)
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
func (s *Server) overlaySource(src *carav1.Source) *carav1.Source {
	poll, delivery := s.polls.of(src.GetMetadata().GetName()), s.hints.of(src.GetMetadata().GetName())
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
