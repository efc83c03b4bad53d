package docker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/caravanserai/cara/agent/engine"
)

// ListContainers implements engine.Containers.
func (e *containers) ListContainers(ctx context.Context, labels map[string]string) ([]engine.Container, error) {
	return ask(ctx, e.connection, e.cfg.CallTimeout, func(ctx context.Context, docker *client.Client) ([]engine.Container, error) {
		list, err := docker.ContainerList(ctx, container.ListOptions{All: true, Filters: labelFilter(labels)})
		if err != nil {
			return nil, wrap(err, "list containers")
		}
		out := make([]engine.Container, 0, len(list))
		for _, c := range list {
			out = append(out, listed(c))
		}
		return out, nil
	})
}

// listed is a container as a list has it, without what only its inspection says.
func listed(c container.Summary) engine.Container {
	out := engine.Container{
		ID: c.ID, Labels: c.Labels, State: c.State, CreatedAt: time.Unix(c.Created, 0), Image: c.Image, ImageID: c.ImageID,
	}
	if len(c.Names) > 0 {
		out.Name = strings.TrimPrefix(c.Names[0], "/")
	}
	if c.NetworkSettings != nil {
		out.Networks = attachments(c.NetworkSettings.Networks)
	}
	return out
}

// InspectContainer implements engine.Containers.
func (e *containers) InspectContainer(ctx context.Context, id string) (engine.Container, error) {
	return ask(ctx, e.connection, e.cfg.CallTimeout, func(ctx context.Context, docker *client.Client) (engine.Container, error) {
		c, err := docker.ContainerInspect(ctx, id)
		if err != nil {
			return engine.Container{}, wrap(err, "inspect container %.12s", id)
		}
		return inspected(&c), nil
	})
}

func inspected(c *container.InspectResponse) engine.Container {
	out := engine.Container{
		ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), Labels: c.Config.Labels,
		State: c.State.Status, PID: c.State.Pid, ExitCode: int32(c.State.ExitCode), OOMKilled: c.State.OOMKilled,
		StartError: c.State.Error, StartedAt: parseTime(c.State.StartedAt), FinishedAt: parseTime(c.State.FinishedAt),
		CreatedAt: parseTime(c.Created), Image: c.Config.Image, ImageID: c.Image,
	}
	if c.NetworkSettings != nil {
		out.Networks = attachments(c.NetworkSettings.Networks)
	}
	out.Mounts = sources(c.Mounts)
	if c.HostConfig != nil {
		out.Limits = engine.Limits{NanoCPUs: c.HostConfig.NanoCPUs, Memory: c.HostConfig.Memory}
		if pids := c.HostConfig.PidsLimit; pids != nil && *pids > 0 {
			out.Limits.PIDs = *pids
		}
	}
	if c.Config.StopTimeout != nil {
		out.Grace = new(time.Duration(*c.Config.StopTimeout) * time.Second)
	}
	return out
}

// sources returns the volumes and host paths of a container's mounts, or nil if it has none.
func sources(mounts []container.MountPoint) map[string]engine.Source {
	var out map[string]engine.Source
	for _, m := range mounts {
		source := engine.Source{ReadOnly: !m.RW}
		switch m.Type {
		case mount.TypeVolume:
			source.Volume = m.Name
		case mount.TypeBind:
			source.Path = m.Source
		default:
			continue
		}
		if out == nil {
			out = map[string]engine.Source{}
		}
		out[m.Destination] = source
	}
	return out
}

// parseTime parses the engine's times. The year 1 means never.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

func attachments(networks map[string]*network.EndpointSettings) map[string]engine.Attachment {
	out := map[string]engine.Attachment{}
	for name, n := range networks {
		out[name] = engine.Attachment{NetworkID: n.NetworkID, IP: n.IPAddress}
	}
	return out
}

// RemoveContainer implements engine.Containers.
func (e *containers) RemoveContainer(ctx context.Context, id string) error {
	err := e.call(ctx, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		err := docker.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		if errdefs.IsConflict(err) && strings.Contains(err.Error(), "already in progress") {
			return nil // a caller that needs it gone checks the next list
		}
		return wrap(unlessGone(err), "remove container %.12s", id)
	})
	if err == nil {
		_, err = e.killLeft(ctx, id)
	}
	return err
}

// StartContainer implements engine.Lifecycle.
func (e *containers) StartContainer(ctx context.Context, id string) error {
	return e.call(ctx, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		err := docker.ContainerStart(ctx, id, container.StartOptions{})
		if err == nil || errdefs.IsNotModified(err) {
			return nil
		}
		return e.startFailed(ctx, id, err)
	})
}

// StopContainer implements engine.Lifecycle.
func (e *containers) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	return e.call(ctx, grace+e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		seconds := wholeSeconds(grace)
		return wrap(unlessGone(docker.ContainerStop(ctx, id, container.StopOptions{Timeout: &seconds})), "stop container %.12s", id)
	})
}

// wholeSeconds rounds up, so that a container gets at least its grace period.
func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// RenameContainer implements engine.Lifecycle.
func (e *containers) RenameContainer(ctx context.Context, id, name string) error {
	return e.call(ctx, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		return wrap(unless(docker.ContainerRename(ctx, id, name), "same name as"), "rename container %.12s to %s", id, name)
	})
}

// PauseContainer implements engine.Lifecycle.
func (e *containers) PauseContainer(ctx context.Context, id string) error {
	return e.call(ctx, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		return wrap(unless(docker.ContainerPause(ctx, id), "already paused"), "pause container %.12s", id)
	})
}

// UnpauseContainer implements engine.Lifecycle.
func (e *containers) UnpauseContainer(ctx context.Context, id string) error {
	return e.call(ctx, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		return wrap(docker.ContainerUnpause(ctx, id), "unpause container %.12s", id)
	})
}

// UpdateContainer implements engine.Lifecycle. It also sets the swap limit, as for a new container, because the engine
// rejects a memory limit above it.
func (e *containers) UpdateContainer(ctx context.Context, id string, limits engine.Limits) error {
	return e.call(ctx, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		_, err := docker.ContainerUpdate(ctx, id, container.UpdateConfig{Resources: container.Resources{
			NanoCPUs: limits.NanoCPUs, Memory: limits.Memory, MemorySwap: 2 * limits.Memory, PidsLimit: pidsLimit(limits),
		}})
		if err != nil {
			return wrap(err, "update container %.12s", id)
		}
		c, err := e.InspectContainer(ctx, id) // if the kernel lacks a limit, the engine ignores it without an error
		if err != nil {
			return err
		}
		if limits.NanoCPUs != 0 && c.Limits.NanoCPUs != limits.NanoCPUs || limits.Memory != 0 && c.Limits.Memory != limits.Memory ||
			limits.PIDs != 0 && c.Limits.PIDs != limits.PIDs {
			return fmt.Errorf("update container %.12s: the engine took %+v of the limits %+v: its kernel may lack them", id, c.Limits, limits)
		}
		return nil
	})
}

// pidsLimit returns nil, which means the engine's default or no change, if no limit is given.
func pidsLimit(limits engine.Limits) *int64 {
	if limits.PIDs == 0 {
		return nil
	}
	return &limits.PIDs
}

// ConnectContainer implements engine.Lifecycle.
func (e *containers) ConnectContainer(ctx context.Context, networkName, id, alias string) error {
	return e.call(ctx, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) error {
		err := docker.NetworkConnect(ctx, networkName, id, &network.EndpointSettings{Aliases: []string{alias}})
		return wrap(unless(err, "already exists in network"), "connect container %.12s to network %s", id, networkName)
	})
}
