package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/internal/loop"
)

// health is what the last answer of the engine, or of the disk, means for the node.
type health struct {
	mu   sync.Mutex
	down error // nil: it answers
}

func (h *health) error() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// set returns whether it went away or came back.
func (h *health) set(err error) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed = (h.down == nil) != (err == nil)
	h.down = err
	return changed
}

// engineSaid takes in the outcome of a call: only silence and answers count, not what was answered.
func (a *Agent) engineSaid(err error) {
	if err != nil && !errors.Is(err, engine.ErrUnavailable) {
		return
	}
	if !a.health.set(err) {
		return
	}
	if err != nil {
		a.log.Warn("the engine does not answer: nothing is torn down, nothing is started", "error", err)
	} else {
		a.log.Info("the engine answers")
	}
	kick(a.beat)
}

// watchEngine listens to the engine's events: hints to look at a project now. Each time it has subscribed it lists, so
// that nothing which happened before is missed.
func (a *Agent) watchEngine(ctx context.Context) error {
	backoff := loop.NewBackoff(100*time.Millisecond, a.cfg.MaxBackoff)
	for ctx.Err() == nil {
		subscribed := func() {
			a.engineSaid(nil)
			a.everyProject()
			kick(a.relist)
		}
		err := a.engine.Events(ctx, a.cfg.node().Labels(), subscribed, func(e engine.Event) { a.hint(e.Project) })
		if ctx.Err() != nil {
			return nil
		}
		a.engineSaid(fmt.Errorf("%w: %w", engine.ErrUnavailable, err))
		backoff.Wait(ctx)
	}
	return nil
}

func (a *Agent) everyProject() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for project, t := range a.tasks {
		t.hinted = true
		a.queue.Add(project)
	}
}

// relistLoop compares the engine with what it was at the last look. It is what makes a lost event cost one interval,
// and what finds orphans.
func (a *Agent) relistLoop(ctx context.Context) error {
	ticker := time.NewTicker(a.cfg.Relist)
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
		case <-a.relist:
		}
		seen, err := a.fingerprints(ctx)
		if ctx.Err() != nil {
			return nil
		}
		a.engineSaid(err)
		if err != nil {
			continue
		}
		for _, project := range differing(last, seen) {
			a.hint(project)
		}
		last = seen
		now := time.Now()
		sweepAgain, swept := a.sweep(seen, orphans, now)
		backAgain, back := a.goBack(now)
		for _, wait := range []time.Duration{sweepAgain, backAgain} {
			if wait > 0 {
				time.AfterFunc(wait, func() { kick(a.relist) })
			}
		}
		for reason, message := range map[api.Reason]string{api.ReasonOrphansSwept: swept, api.ReasonEpochWentBack: back} {
			if message != "" {
				words.Go(func() { a.tell(ctx, api.EventWarning, reason, message) })
			}
		}
	}
}

// fingerprints says, for each project that the engine has something of, what that is.
func (a *Agent) fingerprints(ctx context.Context) (map[string]string, error) {
	parts := map[string][]string{}
	containers, err := a.engine.ListContainers(ctx, a.cfg.node().Labels())
	if err != nil {
		return nil, err
	}
	a.counts.containers.Store(int64(len(containers)))
	for _, c := range containers {
		project := c.Labels[api.LabelProject]
		parts[project] = append(parts[project], c.ID+" "+c.Name+" "+c.State+" "+strings.Join(slices.Sorted(maps.Keys(c.Networks)), ","))
	}
	networks, err := a.engine.ListNetworks(ctx, a.cfg.node().Labels())
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		parts[n.Labels[api.LabelProject]] = append(parts[n.Labels[api.LabelProject]], n.ID)
	}
	volumes, err := a.engine.ListVolumes(ctx, a.cfg.node().Labels())
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		parts[v.Labels[api.LabelProject]] = append(parts[v.Labels[api.LabelProject]], v.Name)
	}
	out := map[string]string{}
	for project, p := range parts {
		slices.Sort(p)
		out[project] = strings.Join(p, "\n")
	}
	return out, nil
}

// differing are the projects that differ between two looks.
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
