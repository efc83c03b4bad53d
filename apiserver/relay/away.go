package relay

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/admission"
	"github.com/caravanserai/cara/apiserver/directory"
	"github.com/caravanserai/cara/apiserver/identity"
	"github.com/caravanserai/cara/apiserver/peers"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Elsewhere finds the servers with the agents that are not connected to this one. The zero value is for a server alone.
type Elsewhere struct {
	Directory directory.Directory
	// Conn returns the connection to another server.
	Conn func(ctx context.Context, server string) (grpc.ClientConnInterface, error)
}

// away is the way to the server that has the agent of a node.
type away struct {
	carav1.ProjectServiceClient
	address string          // of the server
	ctx     context.Context //nolint:containedctx // that of the calls to the other server, which end with the caller's
	finish  func()          // ends the calls
}

// away returns the way to the server that has a node's agent; nil if the agent is connected to this server, or to none. A call that
// another server has sent here goes no further: the agent has just left, or comes here in a moment. The caller finishes it.
func (r *Relay) away(ctx context.Context, node string) (*away, error) {
	if r.Elsewhere.Directory == nil || r.Sessions.Of(node) != nil || admission.Behalf(ctx) != nil {
		return nil, nil //nolint:nilnil // there is no other server to ask
	}
	h, ok := r.Elsewhere.Directory.Holder(node)
	if !ok || h.Server == r.Elsewhere.Directory.Self() {
		return nil, nil //nolint:nilnil // see above
	}
	address := r.Elsewhere.Directory.Servers()[h.Server].GetAddress()
	conn, err := r.Elsewhere.Conn(ctx, h.Server)
	if err != nil {
		return nil, err
	}
	actor := identity.ActorOf(ctx)
	leave, err := r.meetings.depart(actor.Name, r.MaxPerCaller)
	if err != nil {
		return nil, err
	}
	over, cancel := context.WithCancel(ctx)
	finish := func() {
		cancel()
		leave()
	}
	r.Guard.Go("relay", func() error {
		select {
		case <-r.DB.Draining:
		case <-over.Done():
		}
		return nil
	}, func(error) { cancel() })
	far, err := peers.Behalf(over, &carav1.PeerCall{
		Server: r.Elsewhere.Directory.Self(), Actor: actor.Name, Token: actor.Token, Session: actor.Session,
		Client: admission.ClientAddr(ctx), Revision: r.DB.Cache.Revision(),
	})
	if err != nil {
		finish()
		return nil, err
	}
	return &away{carav1.NewProjectServiceClient(conn), address, far, finish}, nil
}

// failed returns the error of a call to another server for the caller. ctx is the caller's.
func (r *Relay) failed(ctx context.Context, w *away, err error) error {
	if err != nil && ctx.Err() == nil && r.isDraining() {
		return state.ErrDraining()
	}
	return peers.Failed(ctx, w.address, err)
}

// streamed copies the answers of another server to the caller. err is that of the call.
func streamed[A any](ctx context.Context, r *Relay, w *away, far grpc.ServerStreamingClient[A], err error, send func(*A) error) error {
	if err != nil {
		return r.failed(ctx, w, err)
	}
	return copied(ctx, r, w, far.Recv, send)
}

// copied copies the answers of another server to the caller until they end. ctx is the caller's.
func copied[M any](ctx context.Context, r *Relay, w *away, recv func() (M, error), send func(M) error) error {
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

// talked is streamed for a call in which both sides send. first is the message that was read already.
func talked[Q, A any](ctx context.Context, r *Relay, w *away, far grpc.BidiStreamingClient[Q, A], err error, near grpc.BidiStreamingServer[Q, A], first *Q) error {
	if err != nil {
		return r.failed(ctx, w, err)
	}
	if err := far.Send(first); err != nil && !errors.Is(err, io.EOF) { // Recv has the reason of EOF
		return r.failed(ctx, w, err)
	}
	refused := make(chan error, 1)
	r.Guard.Go("relay", func() error { return sentOn(far, near) }, func(err error) {
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
	err = copied(ctx, r, w, far.Recv, near.Send)
	select {
	case why := <-refused: // the caller sent an invalid message
		if ctx.Err() == nil {
			return why
		}
	default:
	}
	return err
}

// sentOn sends the caller's messages to another server. It returns only errors of the caller.
func sentOn[Q, A any](far grpc.BidiStreamingClient[Q, A], near grpc.BidiStreamingServer[Q, A]) error {
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

// depart counts a stream that another server carries. each limits those of one caller.
func (m *meetings) depart(caller string, each int) (leave func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.of[caller] >= each:
		return nil, errCaller(caller, each)
	case m.departed >= maxAttached:
		return nil, errFull()
	}
	if m.of == nil {
		m.of = make(map[string]int)
	}
	m.departed++
	m.of[caller]++
	left := false
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if left {
			return
		}
		left = true
		m.departed--
		m.leave(caller)
	}, nil
}

// leave ends a stream of a caller. mu must be held.
func (m *meetings) leave(caller string) {
	if m.of[caller]--; m.of[caller] == 0 {
		delete(m.of, caller)
	}
}

func errCaller(caller string, each int) error {
	return api.TooMany("%s has %d streams to agents open (logs, exec, port-forward, top), which is the most for one caller: close some, or start cara-server with a higher --max-streams-per-caller", caller, each)
}

func errFull() error {
	return api.TooMany("%d streams to agents are open, which is the most: close some, or try again later", maxAttached)
}
