package fake

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/caravanserai/cara/agent/engine"
)

// ListVolumes implements engine.Volumes.
func (e *Engine) ListVolumes(ctx context.Context, labels map[string]string) (out []engine.Volume, err error) {
	defer e.end("ListVolumes", &err)
	if err := e.begin(ctx, "ListVolumes"); err != nil {
		return nil, err
	}
	for _, v := range e.volumes {
		if has(v.Labels, labels) {
			out = append(out, v)
		}
	}
	return out, nil
}

// InspectVolume implements engine.Volumes.
func (e *Engine) InspectVolume(ctx context.Context, name string) (_ engine.Volume, err error) {
	defer e.end("InspectVolume", &err)
	if err := e.begin(ctx, "InspectVolume"); err != nil {
		return engine.Volume{}, err
	}
	v, ok := e.volumes[name]
	if !ok {
		return engine.Volume{}, fmt.Errorf("volume %s: %w", name, engine.ErrNotFound)
	}
	return v, nil
}

// DropVolume removes a volume by force, like a person who also removed the containers that mount it.
func (e *Engine) DropVolume(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.volumes, name)
}

// Root sets the engine's data directory.
func (e *Engine) Root(dir string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.root = dir
}

// MountVolumes sets the directory in which new volumes have their data: NAME/_data, as with Docker.
func (e *Engine) MountVolumes(dir string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.data = dir
}

// volume returns a new volume. mu is held.
func (e *Engine) volume(name string, labels map[string]string) engine.Volume {
	v := engine.Volume{Name: name, Labels: maps.Clone(labels)}
	if e.data != "" {
		v.Mountpoint = filepath.Join(e.data, name, "_data")
	}
	return v
}

// CreateVolume implements engine.Volumes.
func (e *Engine) CreateVolume(ctx context.Context, name string, labels map[string]string) (err error) {
	defer e.end("CreateVolume", &err)
	if err := e.begin(ctx, "CreateVolume"); err != nil {
		return err
	}
	if v, ok := e.volumes[name]; ok {
		if has(v.Labels, labels) {
			return nil
		}
		return conflict("volume", name, v.Labels, labels)
	}
	v := e.volume(name, labels)
	if v.Mountpoint != "" {
		if err := os.MkdirAll(v.Mountpoint, 0o755); err != nil {
			return err
		}
	}
	e.volumes[name] = v
	return nil
}

// RemoveVolume implements engine.Volumes.
func (e *Engine) RemoveVolume(ctx context.Context, name string) (err error) {
	defer e.end("RemoveVolume", &err)
	if err := e.begin(ctx, "RemoveVolume"); err != nil {
		return err
	}
	for _, c := range e.containers {
		for _, v := range c.Mounts {
			if v.Volume == name {
				return fmt.Errorf("remove volume %s: it is in use by %s", name, c.Name)
			}
		}
	}
	delete(e.volumes, name)
	return nil
}
