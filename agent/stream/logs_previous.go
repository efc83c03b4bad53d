package stream

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

const (
	// startLag is how much later than its first lines an engine may record the start of a container. It is used if nothing
	// better is known.
	startLag = 50 * time.Millisecond
	// maxPrevious limits how many lines of a previous run are kept to find the last ones.
	maxPrevious = 10_000
)

// previousLogs reads what was written before the last start of each container. If there is nothing, it reads the stored log
// of the container that it replaced.
func (s *Server) previousLogs(ctx context.Context, request *carav1.LogsRequest, lines chan<- *carav1.LogLine) error {
	containers, err := s.logged(ctx, request)
	if err != nil {
		return err
	}
	found := map[string]bool{}
	replaced := map[string][]engine.Container{} // by service: containers without a previous run
	send := func(service string, last *lastLines) error {
		found[service] = found[service] || last.count > 0
		for _, l := range last.lines() {
			select {
			case lines <- logLine(service, l):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	for _, c := range containers {
		service := c.Labels[api.LabelService]
		last, err := s.previousRun(ctx, c.ID, request)
		if err != nil {
			return err
		}
		if last.count == 0 {
			replaced[service] = append(replaced[service], c)
		} else if err := send(service, last); err != nil {
			return err
		}
	}
	for _, service := range slices.Sorted(maps.Keys(replaced)) {
		if found[service] {
			continue
		}
		if err := send(service, s.Kept.load(request.GetName(), service).since(replaced[service], request)); err != nil {
			return err
		}
	}
	if slices.Contains(slices.Collect(maps.Values(found)), true) {
		return nil
	}
	return streamError{codes.NotFound, errors.New("there is no previous run: nothing was written before the last start of these containers, " +
		"and no log was kept of containers that they replaced")}
}

// previousRun reads what a container wrote before its last start.
func (s *Server) previousRun(ctx context.Context, id string, request *carav1.LogsRequest) (*lastLines, error) {
	last := &lastLines{most: int(request.GetTail())}
	c, err := s.Engine.InspectContainer(ctx, id)
	if err != nil {
		return nil, err
	}
	options := engine.LogOptions{Since: logOptions(request).Since, Until: beforeStart(c)}
	if options.Until.IsZero() {
		return last, nil // it has never been started
	}
	err = s.Engine.Logs(ctx, c.ID, options, func(l engine.LogLine) error { last.add(l); return nil })
	return last, err
}

// beforeStart returns a time between the last line of a container's previous run and the first line of its current run.
func beforeStart(c engine.Container) time.Time {
	switch {
	case c.StartedAt.IsZero():
		return time.Time{}
	case !c.FinishedAt.IsZero() && c.FinishedAt.Before(c.StartedAt): // it runs, and FinishedAt is the end of the previous run
		return c.FinishedAt.Add(c.StartedAt.Sub(c.FinishedAt) / 2)
	}
	return c.StartedAt.Add(-startLag)
}

// lastLines keeps the last lines, up to most of them (0: maxPrevious, negative: none).
type lastLines struct {
	most  int
	count int
	kept  []engine.LogLine
}

func (k *lastLines) add(l engine.LogLine) {
	size := maxPrevious
	if k.most > 0 {
		size = min(k.most, size)
	}
	if len(k.kept) < size {
		k.kept = append(k.kept, l)
	} else {
		k.kept[k.count%size] = l
	}
	k.count++
}

func (k *lastLines) lines() []engine.LogLine {
	if k.most < 0 || len(k.kept) == 0 {
		return nil
	}
	first := 0
	if k.count > len(k.kept) {
		first = k.count % len(k.kept)
	}
	return append(slices.Clone(k.kept[first:]), k.kept[:first]...)
}
