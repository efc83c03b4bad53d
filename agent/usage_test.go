package agent_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// usageOf asks the agent for the usage history of a project until it is as wanted, by service.
func (s *server) usageOf(t *testing.T, project string, want func(map[string]*carav1.ServiceUsageHistory) bool, services ...string) map[string]*carav1.ServiceUsageHistory {
	t.Helper()
	got, n := map[string]*carav1.ServiceUsageHistory{}, 0
	waitUntil(t, func() bool {
		n++
		id := fmt.Sprint("usage-", project, services, n)
		s.open(id, &carav1.OpenStream{Kind: &carav1.OpenStream_UsageHistory{UsageHistory: &carav1.UsageHistoryRequest{Name: project, Services: services}}})
		clear(got)
		for _, m := range s.heard(t, id, func([]*carav1.AttachRequest) bool { return s.closed[id] }) {
			if m.GetError() != "" {
				t.Fatalf("the agent answers %s", m.GetError())
			}
			got[m.GetUsageHistory().GetService()] = m.GetUsageHistory()
		}
		return want(got)
	})
	return got
}

// TestUsageHistory: the agent keeps what its services use also if nobody looks. A project that it does not have has nothing.
func TestUsageHistory(t *testing.T) {
	f := newFaked(t)
	f.cfg.UsageEvery = 20 * time.Millisecond
	f.up(t, services("web", "web"))
	both := f.usageOf(t, "p", func(got map[string]*carav1.ServiceUsageHistory) bool { return len(got) == 2 })
	if memory := both["a"].GetMemoryBytes(); !slices.Contains(memory, 64<<20) {
		t.Errorf("the memory is %v, want that of the engine", memory)
	}
	f.usageOf(t, "p", func(got map[string]*carav1.ServiceUsageHistory) bool { return len(got) == 1 && got["b"] != nil }, "b")
	f.usageOf(t, "other", func(got map[string]*carav1.ServiceUsageHistory) bool { return len(got) == 0 })
	f.terminate("p")
	f.wait(t, "p", gone)
	f.usageOf(t, "p", func(got map[string]*carav1.ServiceUsageHistory) bool { return len(got) == 0 })
}

// TestRealUsageHistory: the figures of the kernel are those of the container, and go on after a restart of it.
func TestRealUsageHistory(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	stats := &statsCounter{Engine: r.cfg.Engine}
	r.cfg.Engine = stats
	r.cfg.UsageEvery, r.cfg.Relist = 200*time.Millisecond, 500*time.Millisecond
	r.run(t)
	project := uniqueName("usage")
	r.put(project, &carav1.ProjectSpec{Services: []*carav1.Service{
		{Name: "busy", Image: testimage.Busybox, Command: []string{"sh", "-c", "trap exit TERM; while :; do :; done"}},
		{Name: "idle", Image: testimage.Busybox, Command: []string{"sh", "-c", "trap exit TERM; sleep 1000 & wait"}},
	}})
	before := r.wait(t, project, phase(api.PhaseRunning)).GetStatus().GetServices()[0]
	burns := func(got map[string]*carav1.ServiceUsageHistory) bool {
		busy, idle := got["busy"], got["idle"]
		return busy != nil && idle != nil && slices.Max(busy.GetMemoryBytes()) > 0 && slices.Max(idle.GetMemoryBytes()) > 0 &&
			slices.Max(busy.GetCpuMillis()) > 20 && slices.Max(busy.GetCpuMillis()) > 2*last(idle.GetCpuMillis())
	}
	first := r.usageOf(t, project, burns)["busy"]
	r.edit(project, restarted("t1", "busy"))
	r.wait(t, project, func(p *carav1.Project) bool {
		s := p.GetStatus().GetServices()[0]
		return api.IsTrue(p.GetStatus().GetConditions(), api.CondReady) && s.GetStartedAt().AsTime().After(before.GetStartedAt().AsTime())
	})
	again := time.Now()
	r.usageOf(t, project, func(got map[string]*carav1.ServiceUsageHistory) bool {
		busy := got["busy"]
		return len(busy.GetCpuMillis()) > len(first.GetCpuMillis()) && busy.GetTime().AsTime().After(again) && last(busy.GetCpuMillis()) > 20
	})
	if n := stats.calls.Load(); n > 0 {
		t.Errorf("the engine was asked %d times for figures that the kernel has", n)
	}
	r.terminate(project)
	r.wait(t, project, gone)
}

// statsCounter counts how often an engine is asked for figures.
type statsCounter struct {
	engine.Engine
	calls atomic.Int64
}

func (s *statsCounter) Stats(ctx context.Context, id string, follow bool, emit func(engine.ContainerUsage)) error {
	s.calls.Add(1)
	return s.Engine.Stats(ctx, id, follow, emit)
}

// last returns the last value that was measured, or -1.
func last(values []float32) float32 {
	for _, v := range slices.Backward(values) {
		if v >= 0 {
			return v
		}
	}
	return -1
}
