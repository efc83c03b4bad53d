// Package stream serves requests of users to the containers of a node: exec, logs, port-forward, top and the usage history. The server requests
// a stream over the agent's connection and the agent opens it, so that a node needs no open port. Server then serves it.
//
// A stream changes nothing about a project. A slow client delays only its own stream. When a client leaves, everything that
// was started for it ends. An error that a stream sends contains no value of a Secret; a container's own output is forwarded
// unchanged.
package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/flow"
	"github.com/caravanserai/cara/internal/scrub"
	"github.com/caravanserai/cara/internal/text"
)

// serverEnd is the agent's side of a stream with the server.
type serverEnd = flow.End[*carav1.AttachRequest, *carav1.AttachResponse]

// Server serves the streams of users to the projects of this node.
type Server struct {
	Nodes  carav1.NodeServiceClient
	Engine engine.Engine
	Node   step.Node
	Log    *slog.Logger
	Kept   *KeptLogs
	// Want returns the desired state of a project, or nil for a project that this node does not have.
	Want func(project string) *step.Want
	// Listen returns a channel that receives a value when something may have happened to a project, until stop is called.
	Listen func(project string) (wake <-chan struct{}, stop func())
	// Endpoint returns the address of a service that may receive requests.
	Endpoint func(project, service string) (ip string, ok bool)
	// Usage returns what some services of a project used in the last hour, or all if none is named.
	Usage func(project, uid string, services []string) []*carav1.ServiceUsageHistory
}

// Serve serves one requested stream until it ends or the server closes it. The cleanup of the stream uses outer, which
// outlives the connection.
func (s *Server) Serve(ctx, outer context.Context, open *carav1.OpenStream) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	log := s.Log.With("stream", open.GetStreamId())
	stream, err := s.Nodes.Attach(ctx)
	if err == nil {
		err = stream.Send(&carav1.AttachRequest{StreamId: open.GetStreamId()})
	}
	if err != nil {
		log.Warn("stream not opened", "error", err)
		return
	}
	server := flow.New[*carav1.AttachRequest, *carav1.AttachResponse](stream, open.GetWindow(), func(bytes int64) *carav1.AttachRequest {
		return &carav1.AttachRequest{Taken: bytes}
	})
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		server.Run(ctx)
		cancel() // the client has left
	}()
	project, serve := s.handler(open)
	var values *scrub.List // to remove from errors
	if want := s.Want(project); want != nil {
		values = want.Values
	}
	err = values.Error(serve(ctx, outer, server))
	if err != nil && ctx.Err() == nil {
		err = server.Send(ctx, &carav1.AttachRequest{Error: text.Clip(text.Line(err.Error()), 4000), Code: int32(codeOf(err))})
	}
	if err = errors.Join(err, stream.CloseSend()); err != nil && ctx.Err() == nil {
		log.Warn("stream broken", "error", err)
	}
	<-closed // the server ends its side once its client has read everything, without a time limit
}

// handler returns the project of a stream and the function that serves it.
func (s *Server) handler(open *carav1.OpenStream) (project string, serve func(ctx, outer context.Context, server *serverEnd) error) {
	switch kind := open.GetKind().(type) {
	case *carav1.OpenStream_Logs:
		return kind.Logs.GetName(), func(ctx, _ context.Context, server *serverEnd) error { return s.sendLogs(ctx, kind.Logs, server) }
	case *carav1.OpenStream_Exec:
		return kind.Exec.GetName(), func(ctx, outer context.Context, server *serverEnd) error {
			return s.exec(ctx, outer, kind.Exec, server)
		}
	case *carav1.OpenStream_PortForward:
		return kind.PortForward.GetName(), func(ctx, _ context.Context, server *serverEnd) error {
			return s.portForward(ctx, kind.PortForward, server)
		}
	case *carav1.OpenStream_Top:
		return kind.Top.GetName(), func(ctx, _ context.Context, server *serverEnd) error { return s.top(ctx, kind.Top, server) }
	case *carav1.OpenStream_UsageHistory:
		return kind.UsageHistory.GetName(), func(ctx, _ context.Context, server *serverEnd) error {
			return s.usageHistory(ctx, kind.UsageHistory, server)
		}
	}
	return "", func(context.Context, context.Context, *serverEnd) error {
		return streamError{codes.Unimplemented, errors.New("this agent does not know that kind of stream: it is older than the server")}
	}
}

// streamError is an error with the code for the client.
type streamError struct {
	code codes.Code
	error
}

func (e streamError) Unwrap() error { return e.error }

func codeOf(err error) codes.Code {
	var coded streamError
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, engine.ErrNotFound):
		return codes.NotFound
	}
	return codes.Unavailable
}

// containers returns the containers of some services of a project, or of all if none is named.
func (s *Server) containers(ctx context.Context, project string, services []string) ([]engine.Container, error) {
	all, err := s.Engine.ListContainers(ctx, s.Node.ProjectLabels(project))
	return slices.DeleteFunc(all, func(c engine.Container) bool { return !asked(services, c.Labels[api.LabelService]) }), err
}

// asked reports whether a request includes a service. A request without services includes all.
func asked(services []string, service string) bool {
	return len(services) == 0 || slices.Contains(services, service)
}

// runningContainer returns the running container of a service. If several run, it is the one that serves.
func (s *Server) runningContainer(ctx context.Context, project, service string) (engine.Container, error) {
	all, err := s.containers(ctx, project, []string{service})
	if err != nil {
		return engine.Container{}, err
	}
	var running []engine.Container
	state := "it has no container yet"
	for _, c := range all {
		if c.State != engine.StateRunning {
			state = "its container is " + c.State
			continue
		}
		if c, err = s.Engine.InspectContainer(ctx, c.ID); err != nil {
			return engine.Container{}, err
		}
		running = append(running, c)
	}
	if len(running) == 0 {
		return engine.Container{}, streamError{codes.FailedPrecondition, fmt.Errorf("service %s of project %s is not running: %s", service, project, state)}
	}
	serves, _ := s.Endpoint(project, service)
	return serving(running, step.NetworkName(project), serves), nil
}

// serving returns the container with the address ip, which receives the service's requests, or else the one that was started
// last. During a start-first update two containers run.
func serving(running []engine.Container, network, ip string) engine.Container {
	last := running[0]
	for _, c := range running {
		if ip != "" && c.Networks[network].IP == ip {
			return c
		}
		if c.StartedAt.After(last.StartedAt) {
			last = c
		}
	}
	return last
}
