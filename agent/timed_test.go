package agent_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/engine"
)

// timed counts an engine's calls and their time.
type timed struct {
	engine.Engine
	mu    sync.Mutex
	calls map[string]int
	took  map[string]time.Duration
}

func newTimed(eng engine.Engine) *timed {
	return &timed{Engine: eng, calls: map[string]int{}, took: map[string]time.Duration{}}
}

func (e *timed) count(call string) func() {
	begun := time.Now()
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.calls[call]++
		e.took[call] += time.Since(begun)
	}
}

// report says how many calls of each kind there were for each of n, and what one took.
func (e *timed) report(b *testing.B, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	total := 0
	var out []string
	for call, k := range e.calls {
		total += k
		out = append(out, fmt.Sprintf("%s %.1f x %s", call, float64(k)/float64(n), (e.took[call]/time.Duration(k)).Round(100*time.Microsecond)))
	}
	slices.Sort(out)
	b.ReportMetric(float64(total)/float64(n), "calls")
	b.Log(strings.Join(out, ", "))
}

func (e *timed) ListContainers(ctx context.Context, labels map[string]string) ([]engine.Container, error) {
	defer e.count("ListContainers")()
	return e.Engine.ListContainers(ctx, labels)
}

func (e *timed) InspectContainer(ctx context.Context, id string) (engine.Container, error) {
	defer e.count("InspectContainer")()
	return e.Engine.InspectContainer(ctx, id)
}

func (e *timed) CreateContainer(ctx context.Context, spec engine.ContainerSpec) (string, error) {
	defer e.count("CreateContainer")()
	return e.Engine.CreateContainer(ctx, spec)
}

func (e *timed) RemoveContainer(ctx context.Context, id string) error {
	defer e.count("RemoveContainer")()
	return e.Engine.RemoveContainer(ctx, id)
}

func (e *timed) StartContainer(ctx context.Context, id string) error {
	defer e.count("StartContainer")()
	return e.Engine.StartContainer(ctx, id)
}

func (e *timed) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	defer e.count("StopContainer")()
	return e.Engine.StopContainer(ctx, id, grace)
}

func (e *timed) ListNetworks(ctx context.Context, labels map[string]string) ([]engine.Network, error) {
	defer e.count("ListNetworks")()
	return e.Engine.ListNetworks(ctx, labels)
}

func (e *timed) CreateNetwork(ctx context.Context, name string, labels map[string]string, containers int) (engine.Network, error) {
	defer e.count("CreateNetwork")()
	return e.Engine.CreateNetwork(ctx, name, labels, containers)
}

func (e *timed) RemoveNetwork(ctx context.Context, id string) error {
	defer e.count("RemoveNetwork")()
	return e.Engine.RemoveNetwork(ctx, id)
}

func (e *timed) ListVolumes(ctx context.Context, labels map[string]string) ([]engine.Volume, error) {
	defer e.count("ListVolumes")()
	return e.Engine.ListVolumes(ctx, labels)
}

func (e *timed) InspectImage(ctx context.Context, ref string) (engine.Image, error) {
	defer e.count("InspectImage")()
	return e.Engine.InspectImage(ctx, ref)
}
