package docker

import (
	"context"
	"fmt"

	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"

	"github.com/caravanserai/cara/agent/engine"
)

// ListVolumes implements engine.Volumes.
func (e *volumes) ListVolumes(ctx context.Context, labels map[string]string) ([]engine.Volume, error) {
	return ask(ctx, e.connection, e.cfg.CallTimeout, func(ctx context.Context, docker *client.Client) ([]engine.Volume, error) {
		list, err := docker.VolumeList(ctx, volume.ListOptions{Filters: labelFilter(labels)})
		if err != nil {
			return nil, wrap(err, "list volumes")
		}
		out := make([]engine.Volume, 0, len(list.Volumes))
		for _, v := range list.Volumes {
			out = append(out, engine.Volume{Name: v.Name, Labels: v.Labels, Mountpoint: v.Mountpoint})
		}
		return out, nil
	})
}

// InspectVolume implements engine.Volumes.
func (e *volumes) InspectVolume(ctx context.Context, name string) (engine.Volume, error) {
	return ask(ctx, e.connection, e.cfg.CallTimeout, func(ctx context.Context, docker *client.Client) (engine.Volume, error) {
		v, err := docker.VolumeInspect(ctx, name)
		if err != nil {
			return engine.Volume{}, wrap(err, "inspect volume %s", name)
		}
		return engine.Volume{Name: v.Name, Labels: v.Labels, Mountpoint: v.Mountpoint}, nil
	})
}

// CreateVolume implements engine.Volumes. If the name is taken, the engine returns the existing volume, whoever created it.
func (e *volumes) CreateVolume(ctx context.Context, name string, labels map[string]string) error {
	return e.call(ctx, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		v, err := docker.VolumeCreate(ctx, volume.CreateOptions{Name: name, Labels: labels})
		switch {
		case err != nil:
			return wrap(err, "create volume %s", name)
		case has(v.Labels, labels):
			return nil
		case ours(v.Labels, labels):
			return fmt.Errorf("create volume %s: an older one of the project is still there", name)
		}
		return fmt.Errorf("create volume %s: %w: remove the volume of this name, or rename the project or the volume", name, engine.ErrForeign)
	})
}

// RemoveVolume implements engine.Volumes.
func (e *volumes) RemoveVolume(ctx context.Context, name string) error {
	return e.call(ctx, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		return wrap(unlessGone(docker.VolumeRemove(ctx, name, false)), "remove volume %s", name)
	})
}
