package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	logBuffer   = 1024            // lines between the engine and the server
	logPatience = 2 * time.Second // how long a full buffer holds a container's log up before lines are dropped
)

// sendLogs sends the lines of some services as they come. A slow reader holds the engine up for a moment and is then
// told how many lines it lost.
func (a *Agent) sendLogs(ctx context.Context, request *carav1.LogsRequest, server *serverEnd) error {
	containers, err := a.logged(ctx, request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	lines := make(chan *carav1.LogLine, logBuffer)
	failed := make(chan error, len(containers))
	for _, c := range containers {
		readers.Go(func() { failed <- a.readLog(ctx, c, request, lines) })
	}
	send := func(l *carav1.LogLine) error { return server.Send(ctx, &carav1.AttachRequest{Log: l}) }
	for open := len(containers); open > 0; {
		select {
		case l := <-lines:
			if err := send(l); err != nil {
				return fmt.Errorf("send a log line: %w", err)
			}
		case err := <-failed:
			if err != nil {
				return err
			}
			open--
		}
	}
	for {
		select {
		case l := <-lines:
			if err := send(l); err != nil {
				return fmt.Errorf("send a log line: %w", err)
			}
		default:
			return nil
		}
	}
}

// logged are the containers whose logs are asked for, one for each service.
func (a *Agent) logged(ctx context.Context, request *carav1.LogsRequest) ([]Container, error) {
	labels := a.ownLabels()
	labels[api.LabelProject] = request.GetName()
	all, err := a.engine.ListContainers(ctx, labels)
	if err != nil {
		return nil, err
	}
	var out []Container
	for _, c := range all {
		service := c.Labels[api.LabelService]
		if len(request.GetServices()) == 0 || slices.Contains(request.GetServices(), service) {
			out = append(out, c)
		}
	}
	for _, service := range request.GetServices() {
		if !slices.ContainsFunc(out, func(c Container) bool { return c.Labels[api.LabelService] == service }) {
			return nil, fmt.Errorf("service %s of project %s has no container on node %s", service, request.GetName(), a.cfg.NodeName)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("project %s has no container on node %s yet", request.GetName(), a.cfg.NodeName)
	}
	return out, nil
}

func (a *Agent) readLog(ctx context.Context, c Container, request *carav1.LogsRequest, lines chan<- *carav1.LogLine) error {
	options := LogOptions{Follow: request.GetFollow(), Tail: int(request.GetTail())}
	if request.GetSince() != nil {
		options.Since = request.GetSince().AsTime()
	}
	var lost int32
	err := a.engine.Logs(ctx, c.ID, options, func(l LogLine) error {
		line := &carav1.LogLine{Service: c.Labels[api.LabelService], Stderr: l.Stderr, Line: l.Text, Lost: lost}
		if !l.Time.IsZero() {
			line.Time = timestamppb.New(l.Time)
		}
		select {
		case lines <- line:
			lost = 0
			return nil
		default:
		}
		if lost > 0 {
			lost++ // it has not caught up since: no second wait
			return nil
		}
		select {
		case lines <- line:
			lost = 0
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(logPatience):
			lost++
		}
		return nil
	})
	if ctx.Err() != nil {
		return nil // the reader has gone, or another service's log failed
	}
	if lost > 0 {
		select {
		case lines <- &carav1.LogLine{Service: c.Labels[api.LabelService], Lost: lost}:
		case <-ctx.Done():
		}
	}
	return err
}
