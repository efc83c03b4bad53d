package docker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
)

// busy reports whether a network was not removed because, according to the engine, something is connected to it.
func busy(err error) bool {
	return err != nil && strings.Contains(err.Error(), "has active endpoints")
}

// removeBusy removes a network that the engine considers in use. An engine that went down at the wrong moment keeps
// endpoints of removed containers forever; removeBusy disconnects these by force. An existing container was connected by
// someone else and is left alone.
func (e *connection) removeBusy(ctx context.Context, id string) error {
	docker, err := e.api(ctx)
	if err != nil {
		return err
	}
	n, err := docker.NetworkInspect(ctx, id, network.InspectOptions{})
	if err != nil {
		return wrap(unlessGone(err), "inspect network %s", id)
	}
	var connected []string
	for _, key := range slices.Sorted(maps.Keys(n.Containers)) {
		ghost, err := e.isGhost(ctx, key)
		switch {
		case err != nil:
			return err
		case !ghost:
			connected = append(connected, n.Containers[key].Name)
			continue
		}
		if err := unlessGone(docker.NetworkDisconnect(ctx, id, n.Containers[key].Name, true)); err != nil {
			return wrap(err, "disconnect %s, which is gone, from network %s", n.Containers[key].Name, n.Name)
		}
	}
	if len(connected) > 0 {
		return fmt.Errorf("remove network %s: it is in use by %s: docker network disconnect -f %s CONTAINER lets it go",
			n.Name, strings.Join(connected, ", "), n.Name)
	}
	err = unlessGone(docker.NetworkRemove(ctx, id))
	if busy(err) {
		return fmt.Errorf("remove network %s: the engine counts endpoints on it and names no container: restart the engine, which forgets them: %w",
			n.Name, tidy(err))
	}
	return wrap(err, "remove network %s", n.Name)
}

// isGhost reports whether an endpoint belongs to no container. The engine lists it by the container's id, or else by the
// endpoint's own id.
func (e *connection) isGhost(ctx context.Context, key string) (bool, error) {
	if strings.HasPrefix(key, "ep-") {
		return true, nil
	}
	docker, err := e.api(ctx)
	if err != nil {
		return false, err
	}
	list, err := docker.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("id", key))})
	if err != nil {
		return false, wrap(err, "list container %.12s", key)
	}
	return len(list) == 0, nil
}
