package objects

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// overlayProject adds the time of the last heartbeat to a project whose node is NotReady or gone. For other projects it
// returns the shared object unchanged.
func (s *Service) overlayProject(p *carav1.Project) *carav1.Project {
	ref := p.GetStatus().GetNodeRef()
	if ref == "" {
		return p
	}
	node, lost := s.lostNode(ref)
	if !lost {
		return p
	}
	seen := s.Live.LastBeat(ref, s.DB.Now())
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

// overlayProjects is overlayProject for a list, in place. It looks each node up once.
func (s *Service) overlayProjects(list []*carav1.Project) {
	lost := map[string]bool{}
	for i, p := range list {
		ref := p.GetStatus().GetNodeRef()
		is, known := lost[ref]
		if !known && ref != "" {
			_, is = s.lostNode(ref)
			lost[ref] = is
		}
		if is {
			list[i] = s.overlayProject(p)
		}
	}
}

// lostNode returns a node, and whether it is NotReady or gone.
func (s *Service) lostNode(name string) (n *carav1.Node, lost bool) {
	n, ok := state.Get[*carav1.Node](s.DB.Cache, name)
	return n, !ok || n.GetStatus().GetState() == api.NodeNotReady
}

// overlaySource adds the last poll and the last webhook delivery to a source.
func (s *Service) overlaySource(src *carav1.Source) *carav1.Source {
	poll, delivery := s.Live.Polls.Of(src.GetMetadata().GetName()), s.Live.Hints.Of(src.GetMetadata().GetName())
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
	out.Status.Projects = int32(len(s.DB.Cache.View().ProjectsOnNode(name)))
	if last := s.Live.LastBeat(name, s.DB.Now()); !last.IsZero() {
		out.Status.LastHeartbeat = timestamppb.New(last)
	} else if out.GetStatus().GetState() != api.NodeNotReady {
		out.Status.LastHeartbeat = nil
	}
	if info := s.Live.Infos.Of(name); info != nil {
		out.Status.Info = info
	}
	return out
}
