package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// CreateContainer implements engine.Containers.
func (e *containers) CreateContainer(ctx context.Context, spec engine.ContainerSpec) (string, error) {
	config, err := containerConfig(spec)
	if err != nil {
		return "", fmt.Errorf("create container %s: %w: %w", spec.Name, engine.ErrInvalid, err)
	}
	host, err := hostConfig(spec)
	if err != nil {
		return "", fmt.Errorf("create container %s: %w: %w", spec.Name, engine.ErrInvalid, err)
	}
	networks := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
		spec.Network: {Aliases: []string{spec.Service.GetName()}},
	}}
	return ask(ctx, e.connection, e.cfg.WorkTimeout, func(ctx context.Context, docker *client.Client) (string, error) {
		made, err := docker.ContainerCreate(ctx, config, host, networks, nil, spec.Name)
		if errdefs.IsConflict(err) {
			return e.adopt(ctx, spec, err)
		}
		if err != nil {
			return "", wrap(err, "create container %s", spec.Name)
		}
		return made.ID, nil
	})
}

// adopt decides about an existing container with the same name.
func (e *containers) adopt(ctx context.Context, spec engine.ContainerSpec, conflict error) (string, error) {
	found, err := e.InspectContainer(ctx, spec.Name)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return "", wrap(conflict, "create container %s", spec.Name) // removed meanwhile: the next attempt succeeds
	case err != nil:
		return "", err
	case has(found.Labels, spec.Labels):
		return found.ID, nil
	case ours(found.Labels, spec.Labels):
		return "", wrap(conflict, "create container %s", spec.Name) // an older one of ours: the next pass finds it
	}
	return "", fmt.Errorf("create container %s: %w: container %.12s has this name; remove or rename it, or rename the project",
		spec.Name, engine.ErrForeign, found.ID)
}

// ours reports whether labels and want have the same cluster, node and project.
func ours(labels, want map[string]string) bool {
	same := func(key string) bool { return labels[key] == want[key] }
	return same(api.LabelCluster) && same(api.LabelNode) && same(api.LabelProject)
}

func containerConfig(spec engine.ContainerSpec) (*container.Config, error) {
	s := spec.Service
	grace, err := syntax.ParseDuration(s.GetStopGracePeriod(), api.DefaultStopGracePeriod)
	if err != nil {
		return nil, fmt.Errorf("stopGracePeriod: %w", err)
	}
	if grace > maxGrace {
		return nil, fmt.Errorf("stopGracePeriod: %s is more than %s", grace, maxGrace)
	}
	seconds := wholeSeconds(grace)
	return &container.Config{
		Hostname: s.GetName(), User: s.GetUser(), WorkingDir: s.GetWorkingDir(),
		Image: s.GetImage(), Env: spec.Env, Labels: spec.Labels,
		Entrypoint: s.GetCommand(), Cmd: s.GetArgs(),
		StopSignal: s.GetStopSignal(), StopTimeout: &seconds,
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}, // the agent runs all checks, also those of the image
	}, nil
}

const maxGrace = time.Hour

func hostConfig(spec engine.ContainerSpec) (*container.HostConfig, error) {
	s := spec.Service
	host := &container.HostConfig{
		NetworkMode:    container.NetworkMode(spec.Network),
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		LogConfig:      container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "3"}},
		ReadonlyRootfs: s.GetReadOnly(),
		CapAdd:         s.GetCapAdd(), CapDrop: s.GetCapDrop(),
	}
	if s.GetInit() {
		yes := true
		host.Init = &yes
	}
	if s.GetNoNewPrivileges() {
		host.SecurityOpt = []string{"no-new-privileges"}
	}
	for _, m := range s.GetVolumeMounts() {
		host.Mounts = append(host.Mounts, mountOf(spec, m))
	}
	for _, t := range s.GetTmpfs() {
		path, options, _ := strings.Cut(t, ":")
		if host.Tmpfs == nil {
			host.Tmpfs = map[string]string{}
		}
		host.Tmpfs[path] = options
	}
	for _, u := range s.GetUlimits() {
		host.Ulimits = append(host.Ulimits, &container.Ulimit{Name: u.GetName(), Soft: int64(u.GetSoft()), Hard: int64(u.GetHard())})
	}
	return host, limit(host, s)
}

// mountOf returns one mount. A host path must exist: unlike a bind by its short form, a mount never creates one.
func mountOf(spec engine.ContainerSpec, m *carav1.VolumeMount) mount.Mount {
	source := spec.Volumes[m.GetName()]
	out := mount.Mount{
		Type: mount.TypeVolume, Source: source.Volume, Target: m.GetMountPath(), ReadOnly: m.GetReadOnly() || source.ReadOnly,
	}
	if source.Path != "" {
		out.Type, out.Source = mount.TypeBind, source.Path
		return out
	}
	// The labels matter if the volume was removed since the last look. The engine then creates an empty one, and the labels say
	// that it belongs to this assignment only: it is never taken for the data of a Managed volume.
	out.VolumeOptions = &mount.VolumeOptions{Labels: volumeLabels(spec.Labels)}
	return out
}

func limit(host *container.HostConfig, s *carav1.Service) error {
	limits, err := engine.LimitsOf(s)
	if err != nil {
		return err
	}
	shm, err := syntax.Bytes(s.GetShmSize())
	if err != nil {
		return fmt.Errorf("shmSize: %w", err)
	}
	host.NanoCPUs, host.Memory, host.PidsLimit, host.ShmSize = limits.NanoCPUs, limits.Memory, pidsLimit(limits), shm
	return nil
}

// volumeLabels returns the labels of a container that its project's volumes have too.
func volumeLabels(labels map[string]string) map[string]string {
	out := map[string]string{}
	for _, key := range []string{api.LabelCluster, api.LabelNode, api.LabelProject, api.LabelUID, api.LabelEpoch} {
		out[key] = labels[key]
	}
	return out
}
