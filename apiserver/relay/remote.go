package relay

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/directory"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/peers"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Servers finds the servers with the agents that are not connected to this one. The zero value is for a server alone.
type Servers struct {
	Directory directory.Directory
	// Conn returns the connection to another server.
	Conn func(ctx context.Context, server string) (grpc.ClientConnInterface, error)
}

// remote is the server that has the agent of a node.
type remote struct {
	carav1.ProjectServiceClient
	address string          // of the server
	ctx     context.Context //nolint:containedctx // that of the calls to the other server, which end with the caller's
	finish  func()          // ends the calls
}

// remote returns the server that has a node's agent; nil if the agent is connected to this server, or to none. A call that
// another server has sent here goes no further: the agent has just left, or comes here in a moment. The caller finishes it.
func (r *Relay) remote(ctx context.Context, node string) (*remote, error) {
	if r.Servers.Directory == nil || r.Sessions.Of(node) != nil || admission.Behalf(ctx) != nil {
		return nil, nil //nolint:nilnil // there is no other server to ask
	}
	h, ok := r.Servers.Directory.Holder(node)
	if !ok || h.Server == r.Servers.Directory.Self() {
		return nil, nil //nolint:nilnil // see above
	}
	address := r.Servers.Directory.Servers()[h.Server].GetAddress()
	conn, err := r.Servers.Conn(ctx, h.Server)
	if err != nil {
		return nil, err
	}
	actor := identity.ActorOf(ctx)
	leave, err := r.streams.forward(actor.Name, r.MaxPerCaller)
	if err != nil {
		return nil, err
	}
	over, cancel := context.WithCancel(ctx)
	finish := func() {
		cancel()
		leave()
	}
	r.endOnDrain(over.Done(), cancel)
	far, err := peers.WithCall(over, &carav1.PeerCall{
		Server: r.Servers.Directory.Self(), Actor: actor.Name, Token: actor.Token, Session: actor.Session,
		Client: admission.ClientAddr(ctx), Revision: r.DB.Cache.Followed(),
	})
	if err != nil {
		finish()
		return nil, err
	}
	return &remote{carav1.NewProjectServiceClient(conn), address, far, finish}, nil
}

// failed returns the error of a call to another server for the caller. ctx is the caller's.
func (r *Relay) failed(ctx context.Context, w *remote, err error) error {
	if err != nil && ctx.Err() == nil && r.isDraining() {
		return state.ErrDraining()
	}
	return peers.Failed(ctx, w.address, err)
}

// copyAnswers copies the answers of another server to the caller. err is that of the call.
func copyAnswers[A any](ctx context.Context, r *Relay, w *remote, far grpc.ServerStreamingClient[A], err error, send func(*A) error) error {
	if err != nil {
		return r.failed(ctx, w, err)
	}
	return copyMessages(ctx, r, w, far.Recv, send)
}

// copyMessages copies the messages of another server to the caller until they end. ctx is the caller's.
func copyMessages[M any](ctx context.Context, r *Relay, w *remote, recv func() (M, error), send func(M) error) error {
	for {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return r.failed(ctx, w, err)
		}
		if err := send(m); err != nil {
			return err
		}
	}
}

// copyBoth copies the messages of a call in which both sides send. first is the message that was read already.
func copyBoth[Q, A any](ctx context.Context, r *Relay, w *remote, far grpc.BidiStreamingClient[Q, A], err error, near grpc.BidiStreamingServer[Q, A], first *Q) error {
	if err != nil {
		return r.failed(ctx, w, err)
	}
	if err := far.Send(first); err != nil && !errors.Is(err, io.EOF) { // Recv has the reason of EOF
		return r.failed(ctx, w, err)
	}
	refused := make(chan error, 1)
	r.Guard.Go("relay", func() error { return copyRequests(far, near) }, func(err error) {
		if err != nil {
			refused <- err
			w.finish()
		}
	})
	if _, err := far.Header(); err == nil { // the request is valid: see PortForward
		if err := near.SendHeader(nil); err != nil {
			return err
		}
	}
	err = copyMessages(ctx, r, w, far.Recv, near.Send)
	select {
	case why := <-refused: // the caller sent an invalid message
		if ctx.Err() == nil {
			return why
		}
	default:
	}
	return err
}

// copyRequests sends the caller's messages to another server. It returns only errors of the caller.
func copyRequests[Q, A any](far grpc.BidiStreamingClient[Q, A], near grpc.BidiStreamingServer[Q, A]) error {
	for {
		m, err := near.Recv()
		if errors.Is(err, io.EOF) {
			return far.CloseSend()
		}
		if err != nil {
			return err
		}
		if far.Send(m) != nil {
			return nil // the goroutine that reads has the reason
		}
	}
}

// forward counts a stream to an agent of another server. each limits the streams of one caller.
func (m *agentStreams) forward(caller string, each int) (leave func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter(caller, each, m.forwarded); err != nil {
		return nil, err
	}
	m.forwarded++
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.forwarded--
		m.leave(caller)
	}), nil
}

// enter counts a stream of a caller, unless the caller has each, or there are maxAttached of this kind. mu must be held.
func (m *agentStreams) enter(caller string, each, ofKind int) error {
	switch {
	case m.of[caller] >= each:
		return api.TooMany("%s has %d streams to agents open (logs, exec, port-forward, top), which is the most for one caller: close some, or start cara-server with a higher --max-streams-per-caller", caller, each)
	case ofKind >= maxAttached:
		return api.TooMany("%d streams to agents are open, which is the most: close some, or try again later", maxAttached)
	case m.of == nil:
		m.of = make(map[string]int)
	}
	m.of[caller]++
	return nil
}

// leave ends a stream of a caller. mu must be held.
func (m *agentStreams) leave(caller string) {
	if m.of[caller]--; m.of[caller] == 0 {
		delete(m.of, caller)
	}
}
