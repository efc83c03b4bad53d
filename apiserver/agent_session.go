package apiserver

import (
	"context"
	"sync"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// sessions has the one Connect stream of each node that is connected.
type sessions struct {
	mu   sync.Mutex
	node map[string]*session
}

// session is one agent's connection. Whoever wants to send to it goes through send; gRPC allows one sender at a time.
type session struct {
	node, instance string
	here           bool // the agent runs on the server's host
	end            context.CancelCauseFunc
	ended          <-chan struct{} // closed when the session is over

	mu     sync.Mutex // held while sending
	stream carav1.NodeService_ConnectServer
}

// send passes one message on. It blocks while the agent does not read: what has to be sent is worked out again from the
// cache when it does, and never queued.
func (s *session) send(m *carav1.ConnectResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(m)
}

// enter makes a session its node's, and ends the one that was: the newer agent takes over, and the older is told so.
func (s *sessions) enter(n *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node == nil {
		s.node = make(map[string]*session)
	}
	if old := s.node[n.node]; old != nil {
		old.end(takenOver(old, n))
	}
	s.node[n.node] = n
}

// takenOver is what the older agent is told. An agent that only connects again is not another one.
func takenOver(old, by *session) error {
	if old.instance == by.instance {
		return api.Unavailable("the agent of node %q has connected again", old.node)
	}
	return api.TakenOver("another agent has connected as node %q (instance %s, this one is %s): this one stops; give each machine its own --node-name",
		old.node, by.instance, old.instance)
}

// leave takes a session away, unless another has taken over.
func (s *sessions) leave(n *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node[n.node] == n {
		delete(s.node, n.node)
	}
}

// of returns a node's session, or nil.
func (s *sessions) of(node string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node[node]
}

// end ends a node's session with a word for the agent.
func (s *sessions) end(node string, why error) {
	if n := s.of(node); n != nil {
		n.end(why)
	}
}
