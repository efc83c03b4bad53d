package stream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	logBuffer   = 1024            // lines between the engine and the server
	logPatience = 2 * time.Second // how long a full buffer blocks a container's log before lines are dropped
)

// sendLogs sends the lines of some services as they arrive. A slow reader blocks the engine briefly and then gets the number
// of lines that it lost.
func (s *Server) sendLogs(ctx context.Context, request *carav1.LogsRequest, server *serverEnd) error {
	read := s.storedLogs
	switch {
	case request.GetPrevious():
		read = s.previousLogs
	case request.GetFollow():
		read = s.followLogs
	}
	ctx, cancel := context.WithCancel(ctx)
	lines := make(chan *carav1.LogLine, logBuffer)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel()
	var failed error // may be read once lines is closed
	reader.Go(func() {
		defer close(lines)
		failed = read(ctx, request, lines)
	})
	for l := range lines {
		if err := server.Send(ctx, &carav1.AttachRequest{Log: l}); err != nil {
			return fmt.Errorf("send a log line: %w", err)
		}
	}
	return failed
}

// storedLogs reads what has been written so far.
func (s *Server) storedLogs(ctx context.Context, request *carav1.LogsRequest, lines chan<- *carav1.LogLine) error {
	containers, err := s.logged(ctx, request)
	if err != nil {
		return err
	}
	var readers errgroup.Group
	for _, c := range containers {
		readers.Go(func() error { return s.readLog(ctx, c, logOptions(request), lines) })
	}
	return readers.Wait()
}

func logOptions(request *carav1.LogsRequest) engine.LogOptions {
	options := engine.LogOptions{Follow: request.GetFollow(), Tail: int(request.GetTail())}
	if request.GetSince() != nil {
		options.Since = request.GetSince().AsTime()
	}
	return options
}

// logged returns the containers whose logs are requested.
func (s *Server) logged(ctx context.Context, request *carav1.LogsRequest) ([]engine.Container, error) {
	out, err := s.containers(ctx, request.GetName(), request.GetServices())
	if err != nil {
		return nil, err
	}
	for _, service := range request.GetServices() {
		if !slices.ContainsFunc(out, func(c engine.Container) bool { return c.Labels[api.LabelService] == service }) {
			return nil, fmt.Errorf("service %s of project %s has no container on node %s", service, request.GetName(), s.Node.Name)
		}
	}
	if len(out) == 0 {
		return nil, s.noContainer(request)
	}
	return out, nil
}

func (s *Server) noContainer(request *carav1.LogsRequest) error {
	return fmt.Errorf("project %s has no container on node %s yet", request.GetName(), s.Node.Name)
}

// readLog forwards the lines of one container.
func (s *Server) readLog(ctx context.Context, c engine.Container, options engine.LogOptions, lines chan<- *carav1.LogLine) error {
	send := &logSender{service: c.Labels[api.LabelService], lines: lines}
	err := s.Engine.Logs(ctx, c.ID, options, func(l engine.LogLine) error { return send.send(ctx, l) })
	if ctx.Err() != nil {
		return nil // the reader has left, or another service's log failed
	}
	send.flush(ctx)
	return err
}

// logSender forwards the lines of one container, and counts the lines that are lost.
type logSender struct {
	service string
	lines   chan<- *carav1.LogLine
	lost    int32 // lines before the next one
	slow    bool  // the reader has not caught up since the last wait
}

func (s *logSender) send(ctx context.Context, l engine.LogLine) error {
	line := logLine(s.service, l)
	line.Lost = s.lost
	select {
	case s.lines <- line:
		s.lost, s.slow = 0, false
		return nil
	default:
	}
	if s.slow {
		s.lost++ // no second wait
		return nil
	}
	select {
	case s.lines <- line:
		s.lost = 0
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(logPatience):
		s.lost++
		s.slow = true
	}
	return nil
}

// flush reports lines that were lost at the end.
func (s *logSender) flush(ctx context.Context) {
	if s.lost == 0 {
		return
	}
	select {
	case s.lines <- &carav1.LogLine{Service: s.service, Lost: s.lost}:
		s.lost = 0
	case <-ctx.Done():
	}
}

func logLine(service string, l engine.LogLine) *carav1.LogLine {
	line := &carav1.LogLine{Service: service, Stderr: l.Stderr, Line: l.Text}
	if l.Size > 0 {
		line.Line += fmt.Sprintf(" [cut: the line has %d bytes]", l.Size)
	}
	if !l.Time.IsZero() {
		line.Time = timestamppb.New(l.Time)
	}
	return line
}
