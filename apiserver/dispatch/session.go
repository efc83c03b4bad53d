package dispatch

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Sessions holds the Connect stream of each connected node.
type Sessions struct {
	mu      sync.Mutex
	node    map[string]*Session
	changed chan struct{} // closed when the agents that answer a challenge may have changed; nil if nobody waits
}

// Session is one agent's connection. All senders must use Send, because gRPC allows one sender at a time.
type Session struct {
	Node, Instance string
	certificate    string // the name of the token that stands for the agent's certificate
	here           bool   // the agent runs on the server's host
	capabilities   []string
	peers          []byte   // the digest of the peers that the agent knows
	answers        []string // tokens of the challenges that the agent answers; guarded by Sessions.mu
	held           bool     // the directory has this session; guarded by Sessions.mu
	End            context.CancelCauseFunc
	Ended          <-chan struct{} // closed when the session is over

	obeyed chan struct{} // closed when the agent has told what it has obeyed

	told     *carav1.Servers // what the agent was told about servers; only listen uses it
	answered bool            // obeyed is closed; only listen uses it

	Sending sync.Mutex // guards sends on Stream
	Stream  carav1.NodeService_ConnectServer
}

// can reports whether the agent has a capability.
func (s *Session) can(capability string) bool { return slices.Contains(s.capabilities, capability) }

// Send sends one message. It blocks while the agent does not read. The next message is then computed from the cache;
// nothing is queued.
func (s *Session) Send(m *carav1.ConnectResponse) error {
	s.Sending.Lock()
	defer s.Sending.Unlock()
	return s.Stream.Send(m)
}

// Enter registers a session for its node and ends the earlier one. The older agent gets the reason.
func (s *Sessions) Enter(n *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node == nil {
		s.node = make(map[string]*Session)
	}
	if old := s.node[n.Node]; old != nil {
		old.End(takenOver(old, n.Instance))
	}
	s.node[n.Node] = n
	s.announce()
}

// takenOver returns the error for the older session. by is the newer agent instance. If the same agent instance connects again, it is not a takeover.
func takenOver(old *Session, by string) error {
	if old.Instance == by {
		return api.Unavailable("the agent of node %q has connected again", old.Node)
	}
	return api.TakenOver("another agent has connected as node %q (instance %s, this one is %s): this one stops; give each machine its own --node-name",
		old.Node, by, old.Instance)
}

// leave removes a session and reports whether it was the node's, and no other has replaced it.
func (s *Sessions) leave(n *Session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node[n.Node] != n {
		return false
	}
	delete(s.node, n.Node)
	s.announce()
	return true
}

// Of returns a node's session, or nil.
func (s *Sessions) Of(node string) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node[node]
}

// Count returns the number of sessions.
func (s *Sessions) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.node)
}

// end ends a node's session and sends the reason to the agent.
func (s *Sessions) end(node string, why error) {
	if n := s.Of(node); n != nil {
		n.End(why)
	}
}

// KnowServers sets the addresses of the servers. Each agent is told with its next heartbeat.
func (d *Dispatcher) KnowServers(addresses []string) {
	next := &carav1.Servers{Addresses: addresses}
	if have := d.servers.Load(); have == nil || !proto.Equal(have, next) {
		d.servers.Store(next)
	}
}

// tellServers sends the addresses of the servers if the agent does not have them. Only listen calls it.
func (d *Dispatcher) tellServers(me *Session) error {
	next := d.servers.Load()
	if next == nil || len(next.GetAddresses()) == 0 || next == me.told {
		return nil
	}
	me.told = next
	return me.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_Servers{Servers: next}})
}
