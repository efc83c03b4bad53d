package apiserver

import (
	"sync"

	"google.golang.org/protobuf/proto"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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

// overlaySource lays the last poll over a source.
func (s *Server) overlaySource(src *carav1.Source) *carav1.Source {
	poll := s.polls.of(src.GetMetadata().GetName())
	if poll == nil {
		return src
	}
	out := proto.CloneOf(src)
	if out.Status == nil {
		out.Status = &carav1.SourceStatus{}
	}
	out.Status.Poll = poll
	return out
}
