package apiserver

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// overlayProject says how old a project's status is, where its node is not heard of. Nearly always that is nothing and
// the shared object goes out as it is.
func (s *Server) overlayProject(p *carav1.Project) *carav1.Project {
	ref := p.GetStatus().GetNodeRef()
	if ref == "" {
		return p
	}
	node, ok := state.Get[*carav1.Node](s.db.Cache, ref)
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
