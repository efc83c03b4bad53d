package relay

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// attachTimeout is how long an agent may take to open a requested stream.
	attachTimeout = 10 * time.Second
	// maxAttached limits the streams between callers and agents.
	maxAttached = 1000
)

// agentStreams connects a caller that wants a stream from an agent with the Attach call that the agent makes for it. The
// caller's goroutine then reads the agent's stream itself, so a slow caller slows the agent down: the agent sends at most
// the window of package flow. HTTP/2 flow control would not limit it, because gRPC over net/http reads ahead without a
// limit.
type agentStreams struct {
	mu      sync.Mutex
	waiting map[string]*agentStream // by stream id
	of      map[string]int          // number of streams by caller name

	forwarded int // streams to the agents of other servers
}

// agentStream is one stream from its request to its end. over ends when the caller's side ends.
type agentStream struct {
	id, node string
	arrived  chan *agentEnd
	over     context.Context //nolint:containedctx // the stream's own life, which two calls share
	finish   context.CancelFunc
}

// expect creates a stream for an agent to open, which lasts until finish. each limits the streams of one caller.
func (m *agentStreams) expect(ctx context.Context, node string, each int) (*agentStream, error) {
	caller := identity.ActorOf(ctx).Name
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter(caller, each, len(m.waiting)); err != nil {
		return nil, err
	}
	if m.waiting == nil {
		m.waiting = make(map[string]*agentStream)
	}
	over, cancel := context.WithCancel(ctx)
	w := &agentStream{id: identity.NewSecret(), node: node, arrived: make(chan *agentEnd), over: over}
	w.finish = func() {
		cancel()
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.waiting[w.id] == nil {
			return
		}
		delete(m.waiting, w.id)
		m.leave(caller)
	}
	m.waiting[w.id] = w
	return w, nil
}

// find returns the stream that an agent opens. Only the stream's own node can find it.
func (m *agentStreams) find(id, node string) (*agentStream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.waiting[id]; w != nil && w.node == node {
		return w, nil
	}
	return nil, api.NotFound("nobody waits for this stream: it was given up")
}

// Attach carries one stream that the server requested on Connect.
func (r *Relay) Attach(stream carav1.NodeService_AttachServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	w, err := r.streams.find(first.GetStreamId(), identity.ActorOf(stream.Context()).Node())
	if err != nil {
		return err
	}
	end := newAgentEnd(stream)
	r.Guard.Go("Attach", func() error { // ends when this call returns, which ends the stream
		end.Run(w.over)
		return nil
	}, func(err error) {
		if err != nil {
			w.finish()
		}
	})
	select {
	case w.arrived <- end:
	case <-w.over.Done():
		return nil
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	// The caller's goroutine uses the stream now.
	select {
	case <-w.over.Done():
		return nil
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// openStream asks a node's agent for a stream and waits for it. The stream lasts until the caller finishes it,
// which it must do also after an error.
func (r *Relay) openStream(ctx context.Context, w *agentStream, ask *carav1.OpenStream) (*agentEnd, error) {
	agent := r.Sessions.Of(w.node)
	if agent == nil {
		return nil, errNotConnected(w.node)
	}
	ask.StreamId, ask.Window = w.id, StreamWindow
	// An agent that does not read must not block this caller.
	sent := make(chan error, 1)
	r.Guard.Go("open stream", func() error {
		return agent.Send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_OpenStream{OpenStream: ask}})
	}, func(err error) { sent <- err })
	timeout := time.NewTimer(attachTimeout)
	defer timeout.Stop()
	for {
		select {
		case end := <-w.arrived:
			return end, nil
		case err := <-sent:
			if err != nil {
				return nil, errNodeLeft(w.node)
			}
			sent = nil
		case <-agent.Ended:
			return nil, errNodeLeft(w.node)
		case <-timeout.C:
			return nil, api.Errorf(codes.Unavailable, api.TitleTimeout, "node %s did not answer within %s: look at the log of cara-agent there", w.node, attachTimeout)
		case <-r.DB.Draining:
			return nil, state.ErrDraining()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func errNotConnected(node string) error {
	return api.Unavailable("node %s is not connected: is cara-agent running there?", node)
}

func errNodeLeft(node string) error {
	return api.Unavailable("node %s has disconnected: try again when it is back", node)
}
