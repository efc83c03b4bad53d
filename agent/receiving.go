package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/agent/volume"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// receiving has the volumes that other nodes copy to this one, as the server allows it. Invariants: a volume that an
// assignment of this node uses, or that a container of it mounts, is never received; and the list of a new connection
// replaces the one of the last.
type receiving struct {
	node        step.Node
	engine      engine.Engine
	log         *slog.Logger
	assignments *assignments
	disk        *disk
	created     func() // is called when a volume was created
	receiver    *volume.Receiver
	wake        chan struct{}

	mu       sync.Mutex
	requests map[string]*carav1.ReceiveVolume // by uid
	made     map[string]bool                  // uids whose volume was created
}

func newReceiving(cfg Config, log *slog.Logger, a *assignments, d *disk, created func()) *receiving {
	r := &receiving{
		node: cfg.node(), engine: cfg.Engine, log: log, assignments: a, disk: d, created: created, wake: make(chan struct{}, 1),
		requests: map[string]*carav1.ReceiveVolume{}, made: map[string]bool{},
	}
	r.receiver = &volume.Receiver{Node: cfg.NodeName, Dir: r.dir, Log: log}
	return r
}

// ask allows a node to send a volume.
func (r *receiving) ask(q *carav1.ReceiveVolume) {
	uid := q.GetUid()
	if !api.IsName(q.GetProject()) || !api.IsName(q.GetName()) || uid == "" || len(uid) > maxUID || q.GetFrom() == "" {
		r.log.Error("refused to receive a volume: the server sent no valid name", "uid", uid)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.assignments.holds(uid) {
		r.log.Error("refused to receive a volume that a project of this node uses", "project", q.GetProject(), "uid", uid)
		return
	}
	r.requests[uid] = q
	r.receiver.Allow(uid, q.GetFrom())
	kick(r.wake)
}

// synced ends the list: what it does not name is no longer allowed. Until then, the permissions of the last connection stay. named
// has the uids.
func (r *receiving) synced(named map[string]bool) {
	r.mu.Lock()
	maps.DeleteFunc(r.requests, func(uid string, _ *carav1.ReceiveVolume) bool { return !named[uid] })
	r.mu.Unlock()
	r.receiver.Keep(named)
}

// end ends the permission for a volume.
func (r *receiving) end(uid string) {
	r.receiver.Revoke(uid)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.requests, uid)
	delete(r.made, uid)
}

// receivePause is how often the creation of a volume is tried.
const receivePause = time.Second

// run creates the volumes until ctx ends.
func (r *receiving) run(ctx context.Context) error {
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-retry:
		}
		retry = nil
		if err := r.create(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("a volume for another node's data cannot be created yet", "error", err)
			retry = time.After(receivePause)
		}
	}
}

// create creates the volumes that do not exist yet.
func (r *receiving) create(ctx context.Context) error {
	r.mu.Lock()
	requests := maps.Clone(r.requests)
	maps.DeleteFunc(requests, func(uid string, _ *carav1.ReceiveVolume) bool { return r.made[uid] })
	r.mu.Unlock()
	var errs []error
	for uid, q := range requests {
		labels := r.node.VolumeLabels(q.GetProject(), q.GetName(), uid, q.GetOwner())
		if err := r.engine.CreateVolume(ctx, nameInEngine(q), labels); err != nil {
			errs = append(errs, err)
			continue
		}
		r.mu.Lock()
		r.made[uid] = r.requests[uid] != nil
		r.mu.Unlock()
		r.created()
	}
	return errors.Join(errs...)
}

// volumeRequest is a message about a volume: ReceiveVolume or RestoreVolume.
type volumeRequest interface {
	GetProject() string
	GetName() string
	GetUid() string
}

// nameInEngine returns the name in the engine of a volume that the server asks for.
func nameInEngine(q volumeRequest) string {
	return api.EngineVolume(q.GetProject(), q.GetName(), q.GetUid())
}

// dir returns the directory of a volume that may be received.
func (r *receiving) dir(ctx context.Context, uid string) (string, error) {
	r.mu.Lock()
	q := r.requests[uid]
	r.mu.Unlock()
	if q == nil {
		return "", errors.New("the server no longer allows this node to receive the volume")
	}
	if err := r.unused(ctx, q); err != nil {
		return "", err
	}
	return dataDir(ctx, r.engine, nameInEngine(q), uid)
}

// unused returns an error if a container of this node mounts the volume. That happens if the server was restored from a backup
// that was made during the move: the data here may be newer.
func (r *receiving) unused(ctx context.Context, q *carav1.ReceiveVolume) error {
	container, err := mounted(ctx, r.engine, r.node, q.GetProject(), nameInEngine(q))
	switch {
	case err != nil:
		return err
	case container == "" && r.disk.isUsed(q.GetUid()):
		return volume.Final(fmt.Errorf("a project has used the volume %s on this node, so its data here may be newer; it is not overwritten", nameInEngine(q)))
	case container == "":
		return nil
	}
	return volume.Final(fmt.Errorf("the container %s mounts the volume %s, so its data here is in use and may be newer; it is not overwritten",
		container, nameInEngine(q)))
}

// mounted returns the name of a container of a project that mounts a volume, or an empty string.
func mounted(ctx context.Context, e engine.Engine, node step.Node, project, name string) (string, error) {
	list, err := e.ListContainers(ctx, node.ProjectLabels(project))
	if err != nil {
		return "", err
	}
	for _, c := range list {
		c, err := e.InspectContainer(ctx, c.ID)
		if err != nil && !errors.Is(err, engine.ErrNotFound) {
			return "", err
		}
		for _, source := range c.Mounts {
			if source.Volume == name {
				return c.Name, nil
			}
		}
	}
	return "", nil
}

// dataDir returns the directory with the data of a Managed volume on this machine.
func dataDir(ctx context.Context, e engine.Engine, name, uid string) (string, error) {
	v, err := e.InspectVolume(ctx, name)
	switch {
	case err != nil:
		return "", fmt.Errorf("find the volume %s: %w", name, err)
	case v.Labels[api.LabelVolumeUID] != uid:
		return "", volume.Final(fmt.Errorf("the volume %s has other data: somebody replaced it", name))
	case v.Mountpoint == "":
		return "", volume.Final(fmt.Errorf("the engine does not say where the data of volume %s is", name))
	}
	return v.Mountpoint, nil
}

// holds reports whether a project of this node uses the data of a Managed volume.
func (a *assignments) holds(uid string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tasks {
		if t.want.Holds(uid) {
			return true
		}
	}
	return false
}
