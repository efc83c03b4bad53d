package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/meter"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/loop"
)

// watcher watches the whole engine: it forwards the engine's events about projects, and finds objects that belong to no
// assignment.
type watcher struct {
	cfg         Config
	log         *slog.Logger
	assignments *assignments
	machine     *machine
	events      *events
	usage       *meter.Sampler // learns which containers there are
	relist      chan struct{}  // requests a listing of the engine
	containers  atomic.Int64   // with our labels, at the last look
	swept       atomic.Int64   // projects without an owner that were removed
}

// listen receives the engine's events, which are hints to look at a project now. After each subscription it looks at
// everything, so that no earlier change is missed.
func (w *watcher) listen(ctx context.Context) error {
	backoff := loop.NewBackoff(100*time.Millisecond, w.cfg.MaxBackoff)
	for ctx.Err() == nil {
		subscribed := func() {
			w.killLost(ctx)
			w.machine.engineSaid(nil)
			w.assignments.hintAll()
			kick(w.relist)
		}
		err := w.cfg.Engine.Events(ctx, w.cfg.node().Labels(), subscribed, func(e engine.Event) { w.assignments.hint(e.Project) })
		if ctx.Err() != nil {
			return nil
		}
		w.machine.engineSaid(fmt.Errorf("%w: %w", engine.ErrUnavailable, err))
		backoff.Wait(ctx)
	}
	return nil
}

// killLost kills what an engine that was killed has lost. It comes before any decision on what the engine reports.
func (w *watcher) killLost(ctx context.Context) {
	lost, err := w.cfg.Engine.KillLost(ctx, w.cfg.node().Labels())
	for _, c := range lost {
		w.log.Warn("killed the processes of a container that the engine had lost", "container", c.Name, "project", c.Labels[api.LabelProject])
	}
	if err != nil && ctx.Err() == nil {
		w.log.Warn("processes of containers that the engine has lost may still run", "error", err)
	}
}

// relistLoop compares the engine with its last listing. It limits the cost of a lost event to one interval, and finds
// orphans.
func (w *watcher) relistLoop(ctx context.Context) error {
	ticker := time.NewTicker(w.cfg.Relist)
	defer ticker.Stop()
	var last map[string]string
	orphans := map[string]time.Time{}
	var words sync.WaitGroup
	defer words.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-w.relist:
		}
		seen, err := w.fingerprints(ctx)
		if ctx.Err() != nil {
			return nil
		}
		w.machine.engineSaid(err)
		if err != nil {
			continue
		}
		for _, project := range differing(last, seen) {
			w.assignments.hint(project)
		}
		last = seen
		now := time.Now()
		sweepAgain, swept := w.sweep(seen, orphans, now)
		backAgain, back := w.assignments.goBack(now)
		for _, wait := range []time.Duration{sweepAgain, backAgain} {
			if wait > 0 {
				time.AfterFunc(wait, func() { kick(w.relist) })
			}
		}
		for reason, message := range map[api.Reason]string{api.ReasonOrphansSwept: swept, api.ReasonEpochWentBack: back} {
			if message != "" {
				words.Go(func() { w.events.ofNode(ctx, api.EventWarning, reason, message) })
			}
		}
	}
}

// fingerprints returns a description of the engine's objects for each project.
func (w *watcher) fingerprints(ctx context.Context) (map[string]string, error) {
	parts, labels := map[string][]string{}, w.cfg.node().Labels()
	containers, err := w.cfg.Engine.ListContainers(ctx, labels)
	if err != nil {
		return nil, err
	}
	w.containers.Store(int64(len(containers)))
	w.usage.Saw(containers)
	for _, c := range containers {
		project := c.Labels[api.LabelProject]
		parts[project] = append(parts[project], c.ID+" "+c.Name+" "+c.State+" "+strings.Join(slices.Sorted(maps.Keys(c.Networks)), ","))
	}
	networks, err := w.cfg.Engine.ListNetworks(ctx, labels)
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		parts[n.Labels[api.LabelProject]] = append(parts[n.Labels[api.LabelProject]], n.ID)
	}
	volumes, err := w.cfg.Engine.ListVolumes(ctx, labels)
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		parts[v.Labels[api.LabelProject]] = append(parts[v.Labels[api.LabelProject]], v.Name)
	}
	delete(parts, "") // a Managed volume has no project; swept by an empty name, it would take all projects with it
	out := map[string]string{}
	for project, p := range parts {
		slices.Sort(p)
		out[project] = strings.Join(p, "\n")
	}
	return out, nil
}

// differing returns the projects that differ between two looks.
func differing(before, now map[string]string) []string {
	out := map[string]bool{}
	for project, print := range now {
		if before[project] != print {
			out[project] = true
		}
	}
	for project := range before {
		if _, ok := now[project]; !ok {
			out[project] = true
		}
	}
	return slices.Sorted(maps.Keys(out))
}
