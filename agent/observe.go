package agent

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/agent/content"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/hostvolume"
	"github.com/caravanserai/cara/agent/image"
	"github.com/caravanserai/cara/agent/probe"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
)

// observer reads the state of a project: from the engine, the puller and the prober.
type observer struct {
	node   step.Node
	engine engine.Engine
	pulls  *image.Puller
	probes *probe.Prober
	files  *content.Store
}

// observe reads everything that the engine has of a project. An error means that the state is unknown, never that nothing
// exists. Neither the error nor the result contains a value of the project's Secrets.
func (o *observer) observe(ctx context.Context, want *step.Want, ws *workspace) (*step.Have, error) {
	have, err := o.read(ctx, want, ws)
	return have, want.Values.Error(err)
}

func (o *observer) read(ctx context.Context, want *step.Want, ws *workspace) (*step.Have, error) {
	labels := o.node.ProjectLabels(want.Project)
	have := &step.Have{Images: map[string]bool{}, Record: ws.record}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		have.Containers, ws.looks, err = o.containers(gctx, want, ws.looks)
		return err
	})
	have.Networks, have.Volumes = ws.networks, ws.volumes
	if have.Networks == nil || want.Remove { // only a fresh list proves that something is gone
		g.Go(func() (err error) {
			have.Networks, err = o.engine.ListNetworks(gctx, labels)
			return err
		})
	}
	if have.Volumes == nil || want.Remove {
		g.Go(func() (err error) {
			have.Volumes, err = o.engine.ListVolumes(gctx, labels)
			return err
		})
	}
	have.Managed = ws.managed
	if !want.HasData(have.Managed) { // a restore or a move fills volumes without the worker
		g.Go(func() (err error) {
			have.Managed, err = o.managed(gctx, want.Project)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	ws.networks, ws.volumes, ws.managed = have.Networks, have.Volumes, have.Managed
	ws.sightings = step.Sight(have.Containers, ws.sightings, time.Now())
	o.observePulls(want, ws) // before the images: what a completed pull has brought must be seen, or it is pulled again
	if !want.Remove {
		have.Missing, have.Unfetched = hostvolume.Missing(want), o.files.Missing(api.Blobs(want.Spec))
		if err := o.observeImages(ctx, want, have, ws); err != nil {
			return nil, err
		}
		if err := o.observeFacts(ctx, want, have, ws); err != nil {
			return nil, err
		}
	}
	have.Memory, have.Leaving = ws.memory.Snapshot(), ws.leaving
	have.Health = o.probes.Sync(ctx, want.Project, step.Checks(want, have))
	have.Digests = maps.Clone(ws.digests)
	return have, nil
}

// managed returns the Managed volumes of a project in the engine, never nil.
func (o *observer) managed(ctx context.Context, project string) ([]engine.Volume, error) {
	labels := o.node.Labels()
	labels[api.LabelVolume] = ""
	all, err := o.engine.ListVolumes(ctx, labels)
	return append([]engine.Volume{}, step.ManagedOf(all, project)...), err
}

// lookHolds is how long an inspection is valid within one turn, if the list shows the container unchanged and no action was
// done on it. It applies to containers that run or were never started. Otherwise twenty services that start one after the
// other would cause two hundred inspections.
const lookHolds = time.Second

// look is an inspected container, with its list entry at that time.
type look struct {
	listed, found engine.Container
	at            time.Time
}

func (l look) holds(listed engine.Container, now time.Time) bool {
	steady := listed.State == engine.StateRunning || listed.State == engine.StateCreated
	return steady && now.Sub(l.at) < lookHolds && reflect.DeepEqual(l.listed, listed)
}

// containers lists and inspects the containers. A container that disappears in between is gone. Decisions use the
// inspection, because an engine with a full disk lists a running container as created. looks are the inspections of earlier
// passes in this turn.
func (o *observer) containers(ctx context.Context, want *step.Want, looks map[string]look) ([]engine.Container, map[string]look, error) {
	list, err := o.engine.ListContainers(ctx, o.node.ProjectLabels(want.Project))
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
			c, err := o.engine.InspectContainer(ctx, list[i].ID)
			if errors.Is(err, engine.ErrNotFound) {
				gone[i] = true
				return nil
			}
			c.StartError = want.Values.Text(c.StartError)
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
