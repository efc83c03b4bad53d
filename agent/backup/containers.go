package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// EngineContainers are the containers of a project in an engine. Records is the directory with the records of pauses.
type EngineContainers struct {
	Engine  engine.Engine
	Project string
	Labels  map[string]string // of all containers of the project
	Records string
}

// pause is the record of the containers that are paused, or are about to be.
type pause struct {
	Containers []string `json:"containers"`
}

// recordSuffix ends the name of a record, after the project's.
const recordSuffix = ".paused"

func (c *EngineContainers) record() string { return filepath.Join(c.Records, c.Project+recordSuffix) }

// Exec implements Containers.
func (c *EngineContainers) Exec(ctx context.Context, service string, command []string) (int, string, error) {
	list, err := c.Engine.ListContainers(ctx, c.Labels)
	if err != nil {
		return 0, "", err
	}
	for _, found := range list {
		if found.Labels[api.LabelService] == service && found.State == engine.StateRunning {
			return c.run(ctx, found.ID, command)
		}
	}
	return 0, "", errors.New("it is not running")
}

func (c *EngineContainers) run(ctx context.Context, id string, command []string) (int, string, error) {
	process, err := c.Engine.Start(ctx, id, engine.Command{Args: command})
	if err != nil {
		return 0, "", err
	}
	defer process.End(ctx)
	output := &tail{limit: maxHookOutput}
	code, err := process.Wait(ctx, func(data []byte, _ bool) error {
		_, err := output.Write(data)
		return err
	})
	return code, strings.ToValidUTF8(string(output.data), "?"), err
}

// Pause implements Containers.
func (c *EngineContainers) Pause(ctx context.Context) error {
	list, err := c.Engine.ListContainers(ctx, c.Labels)
	if err != nil {
		return err
	}
	var record pause
	for _, found := range list {
		if found.State == engine.StateRunning {
			record.Containers = append(record.Containers, found.ID)
		}
	}
	if len(record.Containers) == 0 {
		return nil
	}
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(c.record(), data, 0o600); err != nil {
		return fmt.Errorf("write the record of the pause: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, id := range record.Containers {
		g.Go(func() error {
			err := c.Engine.PauseContainer(ctx, id)
			if found, look := c.Engine.InspectContainer(ctx, id); err != nil && look == nil && found.State != engine.StateRunning {
				return nil // it has ended meanwhile, so it writes nothing
			}
			return err
		})
	}
	return g.Wait()
}

// Resume implements Containers. It tries every container, and keeps the record until all run.
func (c *EngineContainers) Resume(ctx context.Context) error {
	data, err := os.ReadFile(c.record())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var record pause
	if err := json.Unmarshal(data, &record); err != nil {
		return fmt.Errorf("read the record of the pause: %w", err)
	}
	errs := make([]error, len(record.Containers))
	var all sync.WaitGroup
	for i, id := range record.Containers {
		all.Go(func() { errs[i] = c.resume(ctx, id) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.Remove(c.record())
}

func (c *EngineContainers) resume(ctx context.Context, id string) error {
	found, err := c.Engine.InspectContainer(ctx, id)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return nil
	case err != nil:
		return err
	case found.State != engine.StatePaused:
		return nil
	}
	if err := c.Engine.UnpauseContainer(ctx, id); err != nil {
		if found, look := c.Engine.InspectContainer(ctx, id); look != nil || found.State == engine.StatePaused {
			return err
		}
	}
	return nil
}

// Paused returns the projects with a record of a pause: those whose containers an agent that was killed has left paused.
func Paused(records string) ([]string, error) {
	entries, err := os.ReadDir(records)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var projects []string
	for _, e := range entries {
		if project, ok := strings.CutSuffix(e.Name(), recordSuffix); ok && api.IsName(project) {
			projects = append(projects, project)
		}
	}
	return projects, nil
}
