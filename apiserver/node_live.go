package apiserver

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// heartbeatInterval is what agents are told to keep.
	heartbeatInterval = 5 * time.Second
	// nodeLease is how long a node counts as there after its last heartbeat.
	nodeLease = 20 * time.Second
)

// overlayNode is a node with what is kept in memory of it. The node itself is shared and stays as it is. The last
// heartbeat of a node that is there is absent until it is heard of after the server's start: what was stored with its
// last transition is old by then. For a node that is NotReady it is what there is.
func (s *Server) overlayNode(n *carav1.Node) *carav1.Node {
	name := n.GetMetadata().GetName()
	out := proto.CloneOf(n)
	if out.Status == nil {
		out.Status = &carav1.NodeStatus{}
	}
	out.Status.Projects = int32(len(s.db.Cache.ProjectsOnNode(name)))
	if last := s.beats.of(name); !last.IsZero() {
		out.Status.LastHeartbeat = timestamppb.New(last)
	} else if out.GetStatus().GetState() != api.NodeNotReady {
		out.Status.LastHeartbeat = nil
	}
	if info := s.infos.of(name); info != nil {
		out.Status.Info = info
	}
	return out
}
