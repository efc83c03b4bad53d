package relay

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/apiserver/rules"
	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/flow"
)

// StreamWindow is how many unacknowledged bytes a stream between an agent and its caller may have in each direction.
const StreamWindow = 256 << 10

// agentEnd is the server's side of a stream with an agent.
type agentEnd = flow.End[*carav1.AttachResponse, *carav1.AttachRequest]

func newAgentEnd(stream carav1.NodeService_AttachServer) *agentEnd {
	return flow.New[*carav1.AttachResponse, *carav1.AttachRequest](stream, StreamWindow, func(bytes int64) *carav1.AttachResponse {
		return &carav1.AttachResponse{Taken: bytes}
	})
}

// talk connects an agent and its caller. down handles a message from the agent. up, if set, returns the next message for
// the agent, and io.EOF after the last. up runs in a separate goroutine that ends with the caller's call.
type talk struct {
	down func(*carav1.AttachRequest) error
	up   func() (*carav1.AttachResponse, error)
}

// endOnDrain calls end when the server begins to shut down, or when over is closed.
func (r *Relay) endOnDrain(over <-chan struct{}, end func()) {
	r.Guard.Go("relay", func() error {
		select {
		case <-r.DB.Draining:
		case <-over:
		}
		return nil
	}, func(error) { end() })
}

// carry asks a node's agent for a stream and carries it until either side ends.
func (r *Relay) carry(ctx context.Context, node string, ask *carav1.OpenStream, c talk) error {
	w, err := r.streams.expect(ctx, node, r.MaxPerCaller)
	if err != nil {
		return err
	}
	defer w.finish()
	agent, err := r.openStream(ctx, w, ask)
	if err != nil {
		return err
	}
	r.endOnDrain(w.over.Done(), w.finish)
	refused := make(chan error, 1)
	if c.up != nil {
		r.Guard.Go("relay", func() error { return pump(w.over, agent, c.up) }, func(err error) {
			if err != nil {
				refused <- err
				w.finish()
			}
		})
	}
	for {
		msg, err := agent.Recv(w.over) //nolint:contextcheck // the stream's context, which is derived from ctx
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return r.whyOver(ctx, node, refused)
		case msg.GetError() != "":
			return agentError(node, msg)
		}
		if err := c.down(msg); err != nil {
			return err
		}
	}
}

// pump sends the caller's messages to an agent. It returns only errors of the caller; the goroutine that reads reports a
// lost agent.
func pump(ctx context.Context, agent *agentEnd, next func() (*carav1.AttachResponse, error)) error {
	for {
		msg, err := next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if agent.Send(ctx, msg) != nil {
			return nil
		}
	}
}

// whyOver returns what ended a stream early.
func (r *Relay) whyOver(ctx context.Context, node string, refused <-chan error) error {
	select {
	case err := <-refused: // the caller sent an invalid message
		if ctx.Err() == nil {
			return err
		}
	default:
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case r.isDraining():
		return state.ErrDraining()
	default:
		return errNodeLeft(node)
	}
}

// agentError returns the error that an agent reported.
func agentError(node string, msg *carav1.AttachRequest) error {
	code := codes.Code(uint32(msg.GetCode()))
	switch code {
	case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.Unimplemented:
	default: // any other error is not the caller's fault
		code = codes.Unavailable
	}
	title := api.ProblemOf(status.Error(code, "")).GetTitle()
	return api.Errorf(code, title, "node %s: %s", node, msg.GetError())
}

// placed returns a project that has a node, for a stream to that node.
func (r *Relay) placed(name, forWhat string) (*carav1.Project, error) {
	p, ok := state.Get[*carav1.Project](r.DB.Cache, name)
	if !ok {
		return nil, rules.NotFound(api.KindProject, name)
	}
	if p.GetStatus().GetNodeRef() == "" {
		return nil, api.BadState("project %q is %s and on no node: there %s",
			name, p.GetStatus().GetPhase(), forWhat)
	}
	return p, nil
}

// oneService returns the service that a caller names, or the only service of the project.
func oneService(p *carav1.Project, service string) (string, error) {
	all := serviceNames(p)
	switch {
	case service == "" && len(all) == 1:
		return all[0], nil
	case service == "":
		return "", api.Invalid("the request", api.Field("service", "say which: project %q has %s", p.GetMetadata().GetName(), strings.Join(all, ", ")))
	case !slices.Contains(all, service):
		return "", api.Invalid("the request", api.Field("service", "is %q; project %q has %s", service, p.GetMetadata().GetName(), strings.Join(all, ", ")))
	}
	return service, nil
}

// knownServices returns an error for a service that the project does not have.
func knownServices(p *carav1.Project, services []string) error {
	all := serviceNames(p)
	for i, service := range services {
		if !slices.Contains(all, service) {
			return api.Invalid("the request", api.Field(api.Element("services", i), "is %q; project %q has %s",
				service, p.GetMetadata().GetName(), strings.Join(all, ", ")))
		}
	}
	return nil
}

func serviceNames(p *carav1.Project) (names []string) {
	for _, service := range p.GetSpec().GetServices() {
		names = append(names, service.GetName())
	}
	return names
}

func (r *Relay) isDraining() bool {
	select {
	case <-r.DB.Draining:
		return true
	default:
		return false
	}
}
