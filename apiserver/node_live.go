package apiserver

import (
	"sync"
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

// liveNodes has what changes with every heartbeat. It is never stored: after a restart of the server nothing is known
// of any node until it is heard of.
type liveNodes struct {
	mu    sync.Mutex
	nodes map[string]liveNode
}

type liveNode struct {
	last time.Time
	info *carav1.NodeInfo // immutable
}

// beat notes a sign of life.
func (l *liveNodes) beat(node string, now time.Time, info *carav1.NodeInfo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nodes == nil {
		l.nodes = make(map[string]liveNode)
	}
	n := l.nodes[node]
	n.last = now
	if info != nil {
		n.info = info
	}
	l.nodes[node] = n
}

func (l *liveNodes) get(node string) (liveNode, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.nodes[node]
	return n, ok
}

func (l *liveNodes) forget(node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.nodes, node)
}

// overlayNode is a node with what is kept in memory of it. The node itself is shared and stays as it is.
func (s *Server) overlayNode(n *carav1.Node) *carav1.Node {
	name := n.GetMetadata().GetName()
	out := proto.CloneOf(n)
	if out.Status == nil {
		out.Status = &carav1.NodeStatus{}
	}
	out.Status.Projects = int32(min(len(s.cache.projectsOnNode(name)), 1<<30))
	if live, ok := s.live.get(name); ok {
		out.Status.LastHeartbeat = timestamppb.New(live.last)
		if live.info != nil {
			out.Status.Info = live.info
		}
	}
	return out
}

// overlayProject is a project with the age of its status, where its node is not heard of. The project itself is shared
// and stays as it is.
func (s *Server) overlayProject(p *carav1.Project) *carav1.Project {
	node := p.GetStatus().GetNodeRef()
	if node == "" {
		return p
	}
	n, ok := lookup[*carav1.Node](s.cache, node)
	if !ok || n.GetStatus().GetState() != api.NodeNotReady {
		return p
	}
	out := proto.CloneOf(p)
	if live, ok := s.live.get(node); ok {
		out.Status.LastSeen = timestamppb.New(live.last)
	} else {
		// Not heard of since this server started: it was NotReady then, and had been since.
		out.Status.LastSeen = api.FindCondition(n.GetStatus().GetConditions(), api.CondReady).GetLastTransitionTime()
	}
	return out
}
