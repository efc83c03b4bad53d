package dispatch

import (
	"context"
	"sync"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Sessions has the one Connect stream of each node that is connected.
type Sessions struct {
	mu   sync.Mutex
	node map[string]*Session
}

// Session is one agent's connection. Whoever wants to send to it goes through send; gRPC allows one sender at a time.
type Session struct {
	Node, Instance string
	here           bool // the agent runs on the server's host
	End            context.CancelCauseFunc
	Ended          <-chan struct{} // closed when the session is over

	Sending sync.Mutex // gRPC allows one sender at a time
	Stream  carav1.NodeService_ConnectServer
}

// Send passes one message on. It blocks while the agent does not read: what has to be sent is worked out again from the
// cache when it does, and never queued.
func (s *Session) Send(m *carav1.ConnectResponse) error {
	s.Sending.Lock()
	defer s.Sending.Unlock()
	return s.Stream.Send(m)
}

// Enter makes a session its node's, and ends the one that was: the newer agent takes over, and the older is told so.
func (s *Sessions) Enter(n *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node == nil {
		s.node = make(map[string]*Session)
	}
	if old := s.node[n.Node]; old != nil {
		old.End(takenOver(old, n))
	}
	s.node[n.Node] = n
}

// takenOver is what the older agent is told. An agent that only connects again is not another one.
func takenOver(old, by *Session) error {
	if old.Instance == by.Instance {
		return api.Unavailable("the agent of node %q has connected again", old.Node)
	}
	return api.TakenOver("another agent has connected as node %q (instance %s, this one is %s): this one stops; give each machine its own --node-name",
		old.Node, by.Instance, old.Instance)
}

// leave takes a session away, unless another has taken over.
func (s *Sessions) leave(n *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node[n.Node] == n {
		delete(s.node, n.Node)
	}
}

// Of returns a node's session, or nil.
func (s *Sessions) Of(node string) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node[node]
}

// end ends a node's session with a word for the agent.
func (s *Sessions) end(node string, why error) {
	if n := s.Of(node); n != nil {
		n.End(why)
	}
}
