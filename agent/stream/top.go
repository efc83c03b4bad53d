package stream

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// topEvery is how often the usage is sent to a client that follows it.
const topEvery = time.Second

// top measures the services of a project: once, or until its client leaves. The engine is asked for figures only while there
// is a client.
func (s *Server) top(ctx context.Context, request *carav1.TopRequest, server *serverEnd) error {
	m := &meter{server: s, request: request, readers: map[string]context.CancelFunc{}, usage: map[string]*carav1.ServiceUsage{}}
	if request.GetFollow() {
		return m.follow(ctx, server)
	}
	containers, err := m.running(ctx)
	if err != nil {
		return err
	}
	if len(containers) == 0 {
		return streamError{codes.FailedPrecondition, fmt.Errorf("no service of project %s is running: there is nothing to measure", request.GetName())}
	}
	failed := make(chan error, len(containers))
	for _, c := range containers {
		m.reading.Go(func() { failed <- m.read(ctx, c, false) })
	}
	m.reading.Wait()
	for range containers {
		if err := <-failed; err != nil {
			return err
		}
	}
	return server.Send(ctx, &carav1.AttachRequest{Top: m.look()})
}

// meter holds the last measured usage of a project's containers.
type meter struct {
	server  *Server
	request *carav1.TopRequest
	readers map[string]context.CancelFunc // by container, of those that are followed
	reading sync.WaitGroup

	mu    sync.Mutex
	usage map[string]*carav1.ServiceUsage // by container
}

func (m *meter) running(ctx context.Context) ([]engine.Container, error) {
	all, err := m.server.containers(ctx, m.request.GetName(), m.request.GetServices())
	return slices.DeleteFunc(all, func(c engine.Container) bool { return c.State != engine.StateRunning }), err
}

// follow sends the figures each second. Containers may come and go meanwhile.
func (m *meter) follow(ctx context.Context, server *serverEnd) error {
	ctx, cancel := context.WithCancel(ctx)
	defer m.reading.Wait()
	defer cancel()
	tick := time.NewTicker(topEvery)
	defer tick.Stop()
	for {
		now, err := m.running(ctx)
		if err != nil {
			return err
		}
		m.readOnly(ctx, now)
		if look := m.look(); len(look.GetServices()) > 0 || len(now) == 0 { // the first figures take a moment
			if err := server.Send(ctx, &carav1.AttachRequest{Top: look}); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readOnly follows exactly these containers.
func (m *meter) readOnly(ctx context.Context, now []engine.Container) {
	ids := map[string]bool{}
	for _, c := range now {
		ids[c.ID] = true
		if m.readers[c.ID] != nil {
			continue
		}
		reader, stop := context.WithCancel(ctx)
		m.readers[c.ID] = stop
		m.reading.Go(func() {
			if err := m.read(reader, c, true); err != nil && reader.Err() == nil {
				m.server.Log.Debug("a container is not measured", "error", err)
			}
		})
	}
	maps.DeleteFunc(m.readers, func(id string, stop context.CancelFunc) bool {
		if !ids[id] {
			stop()
		}
		return !ids[id]
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.usage, func(id string, _ *carav1.ServiceUsage) bool { return !ids[id] })
}

func (m *meter) read(ctx context.Context, c engine.Container, follow bool) error {
	return m.server.Engine.Stats(ctx, c.ID, follow, func(u engine.ContainerUsage) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.usage[c.ID] = &carav1.ServiceUsage{
			Service: c.Labels[api.LabelService], CpuMillis: u.CPUMillis, MemoryBytes: u.Memory, MemoryLimitBytes: u.MemoryLimit,
			ReceivedBytes: u.Received, SentBytes: u.Sent, Pids: u.PIDs,
		}
	})
}

func (m *meter) look() *carav1.TopResponse {
	m.mu.Lock()
	defer m.mu.Unlock()
	look := &carav1.TopResponse{}
	for _, id := range slices.Sorted(maps.Keys(m.usage)) {
		look.Services = append(look.Services, m.usage[id])
	}
	return look
}

// usageHistory sends what the services of a project used in the last hour, one message for each service.
func (s *Server) usageHistory(ctx context.Context, request *carav1.UsageHistoryRequest, server *serverEnd) error {
	want := s.Want(request.GetName())
	if want == nil {
		return nil // nothing of it has been measured here
	}
	for _, history := range s.Usage(want.Project, want.UID, request.GetServices()) {
		if err := server.Send(ctx, &carav1.AttachRequest{UsageHistory: history}); err != nil {
			return err
		}
	}
	return nil
}
