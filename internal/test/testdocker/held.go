package testdocker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
)

// Held is what an engine has with some labels.
type Held struct {
	Containers []container.Summary // including stopped ones
	Networks   []network.Summary
	Volumes    []*volume.Volume
}

// Labelled lists what the engine at host has with all labels. A label with an empty value matches any value.
func Labelled(tb testing.TB, host string, labels map[string]string) Held {
	tb.Helper()
	held, err := List(tb.Context(), host, labels)
	if err != nil {
		tb.Fatal(err)
	}
	return held
}

// List is Labelled for programs.
func List(ctx context.Context, host string, labels map[string]string) (Held, error) {
	docker, err := Client(host)
	if err != nil {
		return Held{}, err
	}
	defer docker.Close()
	match := filters.NewArgs()
	for key, value := range labels {
		if value != "" {
			key += "=" + value
		}
		match.Add("label", key)
	}
	var held Held
	if held.Containers, err = docker.ContainerList(ctx, container.ListOptions{All: true, Filters: match}); err != nil {
		return Held{}, fmt.Errorf("list containers of %s: %w", host, err)
	}
	if held.Networks, err = docker.NetworkList(ctx, network.ListOptions{Filters: match}); err != nil {
		return Held{}, fmt.Errorf("list networks of %s: %w", host, err)
	}
	volumes, err := docker.VolumeList(ctx, volume.ListOptions{Filters: match})
	if err != nil {
		return Held{}, fmt.Errorf("list volumes of %s: %w", host, err)
	}
	held.Volumes = volumes.Volumes
	return held, nil
}

// Empty reports whether there is nothing.
func (h Held) Empty() bool { return len(h.Containers)+len(h.Networks)+len(h.Volumes) == 0 }

// Names returns the containers' names, without the engine's leading slash.
func (h Held) Names() []string {
	var names []string
	for _, c := range h.Containers {
		names = append(names, containerName(c))
	}
	return names
}

func containerName(c container.Summary) string {
	if len(c.Names) == 0 {
		return c.ID
	}
	return strings.TrimPrefix(c.Names[0], "/")
}

// String lists everything, one line each, for error messages.
func (h Held) String() string {
	var b strings.Builder
	for _, c := range h.Containers {
		fmt.Fprintf(&b, "container %s %s %s (%s)\n", containerName(c), c.Image, c.State, c.Status)
	}
	for _, n := range h.Networks {
		fmt.Fprintf(&b, "network %s\n", n.Name)
	}
	for _, v := range h.Volumes {
		fmt.Fprintf(&b, "volume %s\n", v.Name)
	}
	return b.String()
}

// Remove removes everything with the labels from the engine at host, running or not. At least one label is required. A test
// calls it in a cleanup, after the test's own context has ended.
func Remove(ctx context.Context, host string, labels map[string]string) error {
	if len(labels) == 0 {
		return errors.New("remove by labels: no label given, and everything is too much")
	}
	held, err := List(ctx, host, labels)
	if err != nil {
		return err
	}
	docker, err := Client(host)
	if err != nil {
		return err
	}
	defer docker.Close()
	var failed []error
	for _, c := range held.Containers {
		err := docker.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
		failed = append(failed, unlessGone(err))
	}
	for _, n := range held.Networks {
		failed = append(failed, unlessGone(docker.NetworkRemove(ctx, n.ID)))
	}
	for _, v := range held.Volumes {
		failed = append(failed, unlessGone(docker.VolumeRemove(ctx, v.Name, true)))
	}
	return errors.Join(failed...)
}

// unlessGone drops an error which means that the object is already removed or being removed.
func unlessGone(err error) error {
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) && strings.Contains(err.Error(), "already in progress") {
		return nil
	}
	return err
}
