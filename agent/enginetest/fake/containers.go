package fake

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// find finds a container by id or name. mu is held.
func (e *Engine) find(id string) (*container, error) {
	for _, c := range e.containers {
		if c.ID == id || c.Name == id {
			return c, nil
		}
	}
	return nil, fmt.Errorf("container %s: %w", id, engine.ErrNotFound)
}

func (c *container) copied() engine.Container {
	out := c.Container
	out.Labels, out.Networks = maps.Clone(c.Labels), maps.Clone(c.Networks)
	return out
}

func (c *container) changed() {
	close(c.wrote)
	c.wrote = make(chan struct{})
}

// act makes one call about a container. mu is held while do runs.
func (e *Engine) act(ctx context.Context, call, id string, do func(*container) error) (err error) {
	defer e.end(call, &err)
	if err := e.begin(ctx, call); err != nil {
		return err
	}
	c, err := e.find(id)
	if err != nil {
		return err
	}
	return do(c)
}

// ListContainers implements engine.Containers.
func (e *Engine) ListContainers(ctx context.Context, labels map[string]string) (out []engine.Container, err error) {
	defer e.end("ListContainers", &err)
	if err := e.begin(ctx, "ListContainers"); err != nil {
		return nil, err
	}
	for _, c := range e.containers {
		if has(c.Labels, labels) {
			out = append(out, c.copied())
		}
	}
	return out, nil
}

// InspectContainer implements engine.Containers.
func (e *Engine) InspectContainer(ctx context.Context, id string) (out engine.Container, err error) {
	err = e.act(ctx, "InspectContainer", id, func(c *container) error {
		out = c.copied()
		return nil
	})
	return out, err
}

// CreateContainer implements engine.Containers.
func (e *Engine) CreateContainer(ctx context.Context, spec engine.ContainerSpec) (_ string, err error) {
	defer e.end("CreateContainer", &err)
	if err := e.begin(ctx, "CreateContainer"); err != nil {
		return "", err
	}
	if c, err := e.find(spec.Name); err == nil {
		if has(c.Labels, spec.Labels) {
			return c.ID, nil
		}
		return "", conflict("container", spec.Name, c.Labels, spec.Labels)
	}
	image, ok := e.images[spec.Service.GetImage()]
	if !ok {
		return "", fmt.Errorf("create container %s: image %s: %w", spec.Name, spec.Service.GetImage(), engine.ErrNotFound)
	}
	limits, err := engine.LimitsOf(spec.Service)
	if err != nil {
		return "", fmt.Errorf("create container %s: %w: %w", spec.Name, engine.ErrInvalid, err)
	}
	mounts, err := e.mount(spec)
	if err != nil {
		return "", err
	}
	id := e.id()
	e.containers[id] = &container{
		Container: engine.Container{
			ID: id, Name: spec.Name, Labels: maps.Clone(spec.Labels), State: engine.StateCreated,
			CreatedAt: e.now(), Image: spec.Service.GetImage(), ImageID: image.ID,
			Networks: map[string]engine.Attachment{spec.Network: {}}, Limits: limits, Mounts: mounts,
		},
		spec: spec, wrote: make(chan struct{}),
	}
	return id, nil
}

// mount returns the mounts of a new container. Like the real engine, it creates a volume that does not exist, with the labels
// of the container's assignment, and never a path of the host. mu is held.
func (e *Engine) mount(spec engine.ContainerSpec) (map[string]engine.Source, error) {
	var mounts map[string]engine.Source
	for _, m := range spec.Service.GetVolumeMounts() {
		source := spec.Volumes[m.GetName()]
		if source.Path != "" {
			if _, err := os.Stat(source.Path); err != nil {
				return nil, fmt.Errorf("create container %s: %w: bind source path does not exist: %s", spec.Name, engine.ErrInvalid, source.Path)
			}
		} else if _, ok := e.volumes[source.Volume]; !ok {
			e.volumes[source.Volume] = e.volume(source.Volume, map[string]string{
				api.LabelCluster: spec.Labels[api.LabelCluster], api.LabelNode: spec.Labels[api.LabelNode], api.LabelProject: spec.Labels[api.LabelProject],
				api.LabelUID: spec.Labels[api.LabelUID], api.LabelEpoch: spec.Labels[api.LabelEpoch],
			})
		}
		if mounts == nil {
			mounts = map[string]engine.Source{}
		}
		source.ReadOnly = source.ReadOnly || m.GetReadOnly()
		mounts[m.GetMountPath()] = source
	}
	return mounts, nil
}

// RemoveContainer implements engine.Containers.
func (e *Engine) RemoveContainer(ctx context.Context, id string) (err error) {
	defer e.end("RemoveContainer", &err)
	if err := e.begin(ctx, "RemoveContainer"); err != nil {
		return err
	}
	if c, err := e.find(id); err == nil {
		e.exit(c, 137)
		delete(e.containers, c.ID)
		e.emit(c, "destroy")
	}
	return nil
}

// KillLost implements engine.Lifecycle. This engine loses nothing.
func (e *Engine) KillLost(ctx context.Context, _ map[string]string) (_ []engine.Container, err error) {
	defer e.end("KillLost", &err)
	return nil, e.begin(ctx, "KillLost")
}

// CopyFiles implements engine.Containers.
func (e *Engine) CopyFiles(ctx context.Context, id string, files []engine.File) error {
	return e.act(ctx, "CopyFiles", id, func(c *container) error {
		c.files = files
		return nil
	})
}

// Files returns the files that were copied into a container.
func (e *Engine) Files(id string) []engine.File {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.containers[id].files
}

// StartContainer implements engine.Lifecycle.
func (e *Engine) StartContainer(ctx context.Context, id string) error {
	return e.act(ctx, "StartContainer", id, func(c *container) error {
		if c.State == engine.StateRunning {
			return nil
		}
		for name := range c.Networks {
			n, ok := e.networkNamed(name)
			if !ok {
				return fmt.Errorf("start container %s: network %s: %w", c.Name, name, engine.ErrNotFound)
			}
			c.Networks[name] = engine.Attachment{NetworkID: n.ID, IP: "127.0.0.1"}
		}
		job := parse(append(append([]string{}, c.spec.Service.GetCommand()...), c.spec.Service.GetArgs()...))
		c.State, c.StartedAt, c.ExitCode = engine.StateRunning, e.now(), 0
		for i := range job.lines {
			c.log = append(c.log, engine.LogLine{Time: e.now(), Text: fmt.Sprintf("job v1 line %d of %d", i+1, job.lines)})
		}
		c.changed()
		e.emit(c, "start")
		if job.ends {
			c.ends = time.AfterFunc(job.after, func() {
				e.mu.Lock()
				defer e.mu.Unlock()
				c.log = append(c.log, engine.LogLine{Time: e.now(), Stderr: true, Text: fmt.Sprintf("job v1: exit %d", job.code)})
				e.exit(c, job.code)
			})
		}
		return nil
	})
}

type job struct {
	lines int
	after time.Duration
	code  int32
	ends  bool
}

// parse parses the job's flags. A container without flags, or with `sleep`, runs until it is stopped.
func parse(args []string) job {
	var j job
	var code int
	flags := flag.NewFlagSet("job", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&j.lines, "lines", 0, "")
	flags.DurationVar(&j.after, "after", 0, "")
	flags.IntVar(&code, "exit", 0, "")
	j.ends = len(args) > 0 && args[0] != "sleep" && flags.Parse(args) == nil
	j.code = int32(code)
	return j
}

// exit ends a container. mu is held.
func (e *Engine) exit(c *container, code int32) {
	if c.ends != nil {
		c.ends.Stop()
	}
	if c.State != engine.StateRunning && c.State != engine.StatePaused {
		return
	}
	c.State, c.ExitCode, c.FinishedAt = engine.StateExited, code, e.now()
	for name, at := range c.Networks {
		c.Networks[name] = engine.Attachment{NetworkID: at.NetworkID}
	}
	c.changed()
	e.emit(c, "die")
}

// Kill ends a container as an external signal would.
func (e *Engine) Kill(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c, err := e.find(id); err == nil {
		e.exit(c, 137)
	}
}

// StopContainer implements engine.Lifecycle.
func (e *Engine) StopContainer(ctx context.Context, id string, _ time.Duration) (err error) {
	defer e.end("StopContainer", &err)
	if err := e.begin(ctx, "StopContainer"); err != nil {
		return err
	}
	if c, err := e.find(id); err == nil {
		e.exit(c, 143)
	}
	return nil
}

// RenameContainer implements engine.Lifecycle.
func (e *Engine) RenameContainer(ctx context.Context, id, name string) error {
	return e.act(ctx, "RenameContainer", id, func(c *container) error {
		if other, err := e.find(name); err == nil && other != c {
			return fmt.Errorf("rename container %s: the name %s is in use by container %s", id, name, other.ID)
		}
		c.Name = name
		e.emit(c, "rename")
		return nil
	})
}

// PauseContainer implements engine.Lifecycle.
func (e *Engine) PauseContainer(ctx context.Context, id string) error {
	return e.act(ctx, "PauseContainer", id, func(c *container) error {
		switch {
		case c.State == engine.StatePaused:
			return nil
		case c.State != engine.StateRunning:
			return fmt.Errorf("pause container %s: it is not running", id)
		}
		c.State = engine.StatePaused
		e.emit(c, "pause")
		return nil
	})
}

// UnpauseContainer implements engine.Lifecycle.
func (e *Engine) UnpauseContainer(ctx context.Context, id string) error {
	return e.act(ctx, "UnpauseContainer", id, func(c *container) error {
		c.State = engine.StateRunning
		e.emit(c, "unpause")
		return nil
	})
}

// UpdateContainer implements engine.Lifecycle.
func (e *Engine) UpdateContainer(ctx context.Context, id string, limits engine.Limits) error {
	return e.act(ctx, "UpdateContainer", id, func(c *container) error {
		if limits.NanoCPUs != 0 {
			c.Limits.NanoCPUs = limits.NanoCPUs
		}
		if limits.Memory != 0 {
			c.Limits.Memory = limits.Memory
		}
		if limits.PIDs != 0 {
			c.Limits.PIDs = limits.PIDs
		}
		return nil
	})
}

// ConnectContainer implements engine.Lifecycle.
func (e *Engine) ConnectContainer(ctx context.Context, network, id, _ string) error {
	return e.act(ctx, "ConnectContainer", id, func(c *container) error {
		n, ok := e.networkNamed(network)
		if !ok {
			return fmt.Errorf("network %s: %w", network, engine.ErrNotFound)
		}
		c.Networks[n.Name] = engine.Attachment{NetworkID: n.ID, IP: "127.0.0.1"}
		return nil
	})
}
