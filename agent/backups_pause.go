package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/caravanserai/cara/agent/backup"
)

// containers returns the containers of a project, which the worker leaves alone while they are paused.
func (b *backups) containers(project string) backup.Containers {
	return &frozenContainers{
		EngineContainers: backup.EngineContainers{
			Engine: b.cfg.Engine, Project: project, Labels: b.cfg.node().ProjectLabels(project), Records: b.runner.Dir,
		},
		assignments: b.assignments,
		notResumed: func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.left[project] = true
		},
	}
}

// findPaused finds the projects that an agent that was killed has left paused. They have no backup until their containers run.
func (b *backups) findPaused() error {
	projects, err := backup.Paused(b.runner.Dir)
	if err != nil {
		return fmt.Errorf("read the records of paused containers: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, project := range projects {
		b.left[project] = true
	}
	return nil
}

// resumePaused resumes the containers that were left paused, and tries until all run.
func (b *backups) resumePaused(ctx context.Context) {
	for {
		b.mu.Lock()
		left := slices.Sorted(maps.Keys(b.left))
		b.mu.Unlock()
		for _, project := range left {
			c := backup.EngineContainers{Engine: b.cfg.Engine, Project: project, Labels: b.cfg.node().ProjectLabels(project), Records: b.runner.Dir}
			if err := c.Resume(ctx); err != nil {
				b.log.Warn("containers that a backup has paused cannot be resumed yet", "project", project, "error", err)
				continue
			}
			b.log.Warn("resumed the containers that a backup had paused", "project", project)
			b.mu.Lock()
			delete(b.left, project)
			b.mu.Unlock()
			kick(b.wake)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(resumeRetry):
		}
	}
}

// frozenContainers freezes the project while its containers are paused: otherwise the worker would resume them.
type frozenContainers struct {
	backup.EngineContainers
	assignments *assignments
	thaw        func()
	notResumed  func() // is called if a container may still be paused
}

// Pause implements backup.Containers.
func (c *frozenContainers) Pause(ctx context.Context) error {
	c.thaw = c.assignments.freeze(c.Project)
	return c.EngineContainers.Pause(ctx)
}

// Resume implements backup.Containers. What it cannot resume is resumed later, by the worker or by resumePaused.
func (c *frozenContainers) Resume(ctx context.Context) error {
	err := c.EngineContainers.Resume(ctx)
	if err != nil {
		c.notResumed()
	}
	if c.thaw != nil {
		c.thaw()
	}
	return err
}
