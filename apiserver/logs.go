package apiserver

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Logs streams the logs of a project's containers from the agent that runs them.
func (s projectService) Logs(req *carav1.LogsRequest, out carav1.ProjectService_LogsServer) error {
	node, err := s.logsNode(req)
	if err != nil {
		return err
	}
	ctx := out.Context()
	w, err := s.meetings.expect(ctx, node)
	if err != nil {
		return err
	}
	defer w.finish()
	stream, err := s.openStream(ctx, w, &carav1.OpenStream{Kind: &carav1.OpenStream_Logs{Logs: proto.CloneOf(req)}})
	if err != nil {
		return err
	}
	// Who leaves ends the agent's stream, and with it the read below.
	ended, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-s.draining:
			w.finish()
		case <-ended.Done():
		}
	}()
	for {
		msg, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil && s.isDraining():
			return errDraining()
		case err != nil:
			return errNodeLeft(node)
		case msg.GetError() != "":
			return api.Errorf(codes.Unavailable, api.TitleUnavailable, "node %s: %s", node, msg.GetError())
		case msg.GetLog() == nil:
			continue
		}
		if err := out.Send(msg.GetLog()); err != nil {
			return err
		}
	}
}

// logsNode is the node that has the logs.
func (s projectService) logsNode(req *carav1.LogsRequest) (string, error) {
	p, ok := lookup[*carav1.Project](s.cache, req.GetName())
	if !ok {
		return "", notFound(api.KindProject, req.GetName())
	}
	var services []string
	for _, service := range p.GetSpec().GetServices() {
		services = append(services, service.GetName())
	}
	for i, service := range req.GetServices() {
		if !slices.Contains(services, service) {
			return "", api.Invalid("the request", fieldError(fieldIndex("services", i), "is %q; project %q has %s",
				service, req.GetName(), strings.Join(services, ", ")))
		}
	}
	node := p.GetStatus().GetNodeRef()
	if node == "" {
		return "", api.Errorf(codes.FailedPrecondition, api.TitleConflict, "project %q is %s and on no node: there are no logs yet",
			req.GetName(), p.GetStatus().GetPhase())
	}
	return node, nil
}

func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}
