package agent

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// ownLabels are on everything that this agent made and nothing else.
func (a *Agent) ownLabels() map[string]string {
	return map[string]string{api.LabelCluster: a.cfg.ClusterID, api.LabelNode: a.cfg.NodeName}
}

// observe reads all that the engine has of a project. An error means that nothing is known, never that nothing is there.
func (a *Agent) observe(ctx context.Context, want *Want, w *workspace) (*Have, error) {
	labels := a.ownLabels()
	labels[api.LabelProject] = want.Project
	have, eng := &Have{Images: map[string]bool{}, Record: w.record}, a.engineOf(want)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		have.Containers, w.looks, err = containers(gctx, eng, labels, w.looks)
		return err
	})
	have.Networks, have.Volumes = w.networks, w.volumes
	if have.Networks == nil || want.Remove { // gone is said only of what was looked for just now
		g.Go(func() (err error) {
			have.Networks, err = eng.ListNetworks(gctx, labels)
			return err
		})
	}
	if have.Volumes == nil || want.Remove {
		g.Go(func() (err error) {
			have.Volumes, err = eng.ListVolumes(gctx, labels)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	w.networks, w.volumes = have.Networks, have.Volumes
	w.sightings = sight(have.Containers, w.sightings, time.Now())
	if !want.Remove {
		if err := a.observeImages(ctx, want, have, w); err != nil {
			return nil, err
		}
		if err := a.observeFacts(ctx, want, have, w); err != nil {
			return nil, err
		}
	}
	a.observePulls(want, w)
	have.Memory, have.Leaving = w.memory.snapshot(), w.leaving
	have.Health = a.probes.sync(ctx, want.Project, targets(want, have))
	have.Digests = maps.Clone(w.digests)
	return have, nil
}

// lookHolds is how long an inspection holds within one turn, as long as the list says the same of the container and nothing was done to it.
// It holds for containers that run or were not started yet. Twenty services that start one after the other would be inspected two hundred times.
const lookHolds = time.Second

// look is a container as it was inspected, and what the list said of it then.
type look struct {
	listed, found engine.Container
	at            time.Time
}

func (l look) holds(listed engine.Container, now time.Time) bool {
	steady := listed.State == engine.StateRunning || listed.State == engine.StateCreated
	return steady && now.Sub(l.at) < lookHolds && reflect.DeepEqual(l.listed, listed)
}

// containers lists and inspects; a container that went between the two is gone. What is done rests on the inspection: an engine whose disk is
// full still lists a container as created that runs. looks are those of earlier passes of this turn.
func containers(ctx context.Context, eng engine.Containers, labels map[string]string, looks map[string]look) ([]engine.Container, map[string]look, error) {
	list, err := eng.ListContainers(ctx, labels)
	if err != nil {
		return nil, nil, err
	}
	gone, taken := make([]bool, len(list)), make([]look, len(list))
	now := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range list {
		if l := looks[list[i].ID]; l.holds(list[i], now) {
			list[i], taken[i] = l.found, l
			continue
		}
		g.Go(func() error {
			c, err := eng.InspectContainer(ctx, list[i].ID)
			if errors.Is(err, engine.ErrNotFound) {
				gone[i] = true
				return nil
			}
			taken[i] = look{listed: list[i], found: c, at: now}
			list[i] = c
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	out, kept := list[:0], map[string]look{}
	for i, c := range list {
		if !gone[i] {
			out = append(out, c)
			kept[c.ID] = taken[i]
		}
	}
	slices.SortFunc(out, func(x, y engine.Container) int { return slices.Compare([]string{x.Name, x.ID}, []string{y.Name, y.ID}) })
	return out, kept, nil
}

// observeImages looks for the images of containers to be made, and once for the digest of each that was made.
func (a *Agent) observeImages(ctx context.Context, want *Want, have *Have, w *workspace) error {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	look := func(ref string) {
		g.Go(func() error {
			image, err := a.engineOf(want).InspectImage(ctx, ref)
			if err != nil && !errors.Is(err, engine.ErrNotFound) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			have.Images[ref] = err == nil
			w.digests[image.ID] = image.Digest
			return nil
		})
	}
	refs := want.images(have)
	for _, c := range have.Containers {
		svc := want.service(c.Labels[api.LabelService])
		mu.Lock()
		_, known := w.digests[c.ImageID]
		mu.Unlock()
		if svc != nil && !known && !slices.Contains(refs, svc.GetImage()) {
			refs = append(refs, svc.GetImage())
			w.digests[c.ImageID] = "" // asked once: the reference may lead to another image by now
		}
	}
	for _, ref := range refs {
		look(ref)
	}
	return g.Wait()
}

// observePulls takes in what became of the pulls that this rollout asked for, and ends those of an older one.
func (a *Agent) observePulls(want *Want, w *workspace) {
	keep := map[pullKey]bool{}
	now := time.Now()
	for ref, pull := range w.memory.Pulls {
		if !pull.Running || want.Remove {
			continue
		}
		job, found := a.pulls.state(want.Project, ref, want.authFor(ref))
		if !found {
			delete(w.memory.Pulls, ref) // other credentials by now: ask again
			continue
		}
		job.err = want.Values.Error(job.err)
		w.memory.Pulls[ref] = pull.after(job, want.Limits, now)
		keep[keyOf(ref, want.authFor(ref))] = true
	}
	a.pulls.forget(want.Project, keep)
}

// targets are the running containers with a check. One that is not as wanted any more is judged by the check that it was
// made with, as long as that is known: the manifest's is its successor's.
func targets(want *Want, have *Have) []target {
	if want.Remove {
		return nil
	}
	s := &step{w: want, h: have}
	var out []target
	for _, c := range have.Containers {
		svc := want.service(c.Labels[api.LabelService])
		ip := c.Networks[networkName(want.Project)].IP
		if c.State != engine.StateRunning || svc == nil || ip == "" || !want.sameAssignment(c.Labels) {
			continue
		}
		t := target{key: probeKey{id: c.ID, started: c.StartedAt}, service: svc.GetName(), ip: ip, values: want.Values, mute: !want.knows(svc, &c)}
		if s.outdated(svc, &c) == "" {
			if t.check = s.check(svc, &c); t.check == nil {
				continue
			}
		}
		out = append(out, t)
	}
	return out
}
