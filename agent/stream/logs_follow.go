package stream

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// logLook is how often the containers of followed logs are checked if no event of the engine arrives.
const logLook = 2 * time.Second

// logFollower follows the logs of some services, across restarts and replacements of their containers, until none of them
// can write any more.
type logFollower struct {
	server  *Server
	request *carav1.LogsRequest
	lines   chan<- *carav1.LogLine
	places  map[string]*logPlace // by container
	seed    maphash.Seed         // for the ids of lines
	begun   bool                 // the first look is over: later containers are new
	ended   chan string          // containers whose reader has ended
	failed  chan error
	readers sync.WaitGroup
}

// followLogs reads until no followed service can write any more.
func (s *Server) followLogs(ctx context.Context, request *carav1.LogsRequest, lines chan<- *carav1.LogLine) error {
	ctx, cancel := context.WithCancel(ctx)
	f := &logFollower{server: s, request: request, lines: lines, places: map[string]*logPlace{}, seed: maphash.MakeSeed(), ended: make(chan string), failed: make(chan error)}
	defer f.readers.Wait()
	defer cancel()
	wake, stop := s.Listen(request.GetName())
	defer stop()
	for {
		over, err := f.look(ctx)
		if err != nil || over {
			return err
		}
		select {
		case id := <-f.ended:
			f.places[id].reading = false
		case err := <-f.failed:
			return err
		case <-wake:
		case <-time.After(logLook):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look starts a reader for each container with something to read, and reports whether the logs are complete.
func (f *logFollower) look(ctx context.Context) (over bool, err error) {
	want := f.server.Want(f.request.GetName()) // before the list: a later change causes another look
	all, err := f.server.containers(ctx, f.request.GetName(), f.request.GetServices())
	if err != nil {
		return false, err
	}
	there := map[string]bool{} // by service that has a container: whether one of them may still write
	for _, c := range all {
		service := c.Labels[api.LabelService]
		more, err := f.container(ctx, c, want)
		if errors.Is(err, engine.ErrNotFound) {
			continue // it was removed after the list, and a successor may come
		}
		if err != nil {
			return false, err
		}
		there[service] = there[service] || more
	}
	if !f.begun && len(there) == 0 && !f.awaited(want, there) {
		return false, f.server.noContainer(f.request)
	}
	f.begun = true
	for _, p := range f.places {
		if p.reading {
			return false, nil
		}
	}
	for _, more := range there {
		if more {
			return false, nil
		}
	}
	return !f.awaited(want, there), nil
}

// container continues to read if there is more, and reports whether more may come. It returns ErrNotFound for a container that
// no longer exists.
func (f *logFollower) container(ctx context.Context, c engine.Container, want *step.Want) (more bool, err error) {
	p := f.places[c.ID]
	if p != nil && p.reading {
		return true, nil
	}
	if c, err = f.server.Engine.InspectContainer(ctx, c.ID); err != nil {
		return false, err
	}
	runs := c.State == engine.StateRunning || c.State == engine.StatePaused
	if runs || p == nil || !p.run.Equal(c.StartedAt) {
		f.read(ctx, c, p)
		return true, nil
	}
	return want.StartsAgain(c), nil
}

func (f *logFollower) read(ctx context.Context, c engine.Container, p *logPlace) {
	options := logOptions(f.request)
	fresh := p == nil && !f.begun // otherwise all unread lines are new, as for a replaced container
	if !fresh {
		options.Tail = 0
	}
	if p == nil {
		p = &logPlace{}
		f.places[c.ID] = p
	}
	p.reading, p.run = true, c.StartedAt
	f.readers.Go(func() {
		send := &logSender{service: c.Labels[api.LabelService], lines: f.lines}
		reader := &logReader{
			engine: f.server.Engine, id: c.ID, seed: f.seed, place: p,
			emit: func(l engine.LogLine, lost int32) error { send.lost += lost; return send.send(ctx, l) },
		}
		err := error(nil)
		if options.Tail < 0 {
			options.Tail = 0
			err = reader.skip(ctx)
		}
		if err == nil {
			err = reader.follow(ctx, options)
		}
		if ctx.Err() != nil {
			return // the client left, or another service's log failed
		}
		send.flush(ctx)
		if err != nil && !errors.Is(err, engine.ErrNotFound) { // the log of a removed container is complete
			select {
			case f.failed <- err:
			case <-ctx.Done():
			}
			return
		}
		select {
		case f.ended <- c.ID:
		case <-ctx.Done():
		}
	})
}

// awaited reports whether a service without a container is going to have one.
func (f *logFollower) awaited(want *step.Want, there map[string]bool) bool {
	if want == nil || want.Remove || want.Phase == api.PhaseFailed {
		return false
	}
	return slices.ContainsFunc(want.Spec.GetServices(), func(svc *carav1.Service) bool {
		_, is := there[svc.GetName()]
		return !is && asked(f.request.GetServices(), svc.GetName())
	})
}
