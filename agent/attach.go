package agent

import (
	"context"
	"errors"
	"fmt"

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

// attach serves one stream that the server asked for, until it is at its end or the server closes it. What it leaves
// behind is cleared away with outer, which outlives the connection.
func (a *Agent) attach(ctx, outer context.Context, open *carav1.OpenStream) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	log := a.log.With("stream", open.GetStreamId())
	stream, err := a.nodes.Attach(ctx)
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
		cancel() // the caller has left
	}()
	err = a.secretsOf(projectOf(open)).Error(a.stream(ctx, outer, open, server))
	if err != nil && ctx.Err() == nil {
		err = server.Send(ctx, &carav1.AttachRequest{Error: text.Clip(text.Line(err.Error()), 4000), Code: int32(codeOf(err))})
	}
	if err = errors.Join(err, stream.CloseSend()); err != nil && ctx.Err() == nil {
		log.Warn("stream broken", "error", err)
	}
	<-closed // the server ends its side once its caller has read all of ours, which may take as long as it likes
}

// projectOf is the project that a stream is about.
func projectOf(open *carav1.OpenStream) string {
	switch kind := open.GetKind().(type) {
	case *carav1.OpenStream_Logs:
		return kind.Logs.GetName()
	case *carav1.OpenStream_Exec:
		return kind.Exec.GetName()
	case *carav1.OpenStream_PortForward:
		return kind.PortForward.GetName()
	case *carav1.OpenStream_Top:
		return kind.Top.GetName()
	}
	return ""
}

// secretsOf are the values that no error about a project may have; nil if the project is not here.
func (a *Agent) secretsOf(project string) *scrub.List {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tasks[project]; t != nil {
		return t.want.Values
	}
	return nil
}

func (a *Agent) stream(ctx, outer context.Context, open *carav1.OpenStream, server *serverEnd) error {
	switch kind := open.GetKind().(type) {
	case *carav1.OpenStream_Logs:
		return a.sendLogs(ctx, kind.Logs, server)
	case *carav1.OpenStream_Exec:
		return a.exec(ctx, outer, kind.Exec, server)
	case *carav1.OpenStream_PortForward:
		return a.portForward(ctx, kind.PortForward, server)
	case *carav1.OpenStream_Top:
		return a.top(ctx, kind.Top, server)
	}
	return streamError{codes.Unimplemented, errors.New("this agent does not know that kind of stream: it is older than the server")}
}

// streamError is an error whose code the caller is to know.
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

// runningContainer is the container of a service that runs, and serves where several do.
func (a *Agent) runningContainer(ctx context.Context, project, service string) (engine.Container, error) {
	labels := a.cfg.node().Labels()
	labels[api.LabelProject], labels[api.LabelService] = project, service
	all, err := a.engine.ListContainers(ctx, labels)
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
		if c, err = a.engine.InspectContainer(ctx, c.ID); err != nil {
			return engine.Container{}, err
		}
		running = append(running, c)
	}
	if len(running) == 0 {
		return engine.Container{}, streamError{codes.FailedPrecondition, fmt.Errorf("service %s of project %s is not running: %s", service, project, state)}
	}
	serves, _ := a.endpoints.IP(project, service)
	return serving(running, step.NetworkName(project), serves), nil
}

// serving is the container that gets the service's requests, which has the address ip; without such a one, the container
// that was started last. While an update that starts first is under way, two run.
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
