package agent

import (
	"context"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/scrub"
)

// quiet is an engine as one project's worker hears it: no error, log line or output of it has a value of the project's
// Secrets. It is the one place where they are taken out, before anything is cut, remembered, reported or logged. What the
// prober and the puller hear goes through the same list (see target and observePulls), and so do the errors of streams (see
// attach). What a container itself says in logs and exec does not: who may call them may see it.
type quiet struct {
	engine.Engine
	values *scrub.List
}

// engineOf is the engine for what is done and seen for want.
func (a *Agent) engineOf(want *step.Want) engine.Engine {
	if want.Values.Empty() {
		return a.engine
	}
	return quiet{a.engine, want.Values}
}

func (q quiet) ListContainers(ctx context.Context, labels map[string]string) ([]engine.Container, error) {
	list, err := q.Engine.ListContainers(ctx, labels)
	for i := range list {
		list[i].StartError = q.values.Text(list[i].StartError)
	}
	return list, q.values.Error(err)
}

func (q quiet) InspectContainer(ctx context.Context, id string) (engine.Container, error) {
	c, err := q.Engine.InspectContainer(ctx, id)
	c.StartError = q.values.Text(c.StartError)
	return c, q.values.Error(err)
}

func (q quiet) CreateContainer(ctx context.Context, spec engine.ContainerSpec) (string, error) {
	id, err := q.Engine.CreateContainer(ctx, spec)
	return id, q.values.Error(err)
}

func (q quiet) RemoveContainer(ctx context.Context, id string) error {
	return q.values.Error(q.Engine.RemoveContainer(ctx, id))
}

func (q quiet) CopyFiles(ctx context.Context, id string, files []engine.File) error {
	return q.values.Error(q.Engine.CopyFiles(ctx, id, files))
}

func (q quiet) StartContainer(ctx context.Context, id string) error {
	return q.values.Error(q.Engine.StartContainer(ctx, id))
}

func (q quiet) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	return q.values.Error(q.Engine.StopContainer(ctx, id, grace))
}

func (q quiet) UnpauseContainer(ctx context.Context, id string) error {
	return q.values.Error(q.Engine.UnpauseContainer(ctx, id))
}

func (q quiet) UpdateContainer(ctx context.Context, id string, limits engine.Limits) error {
	return q.values.Error(q.Engine.UpdateContainer(ctx, id, limits))
}

func (q quiet) RenameContainer(ctx context.Context, id, name string) error {
	return q.values.Error(q.Engine.RenameContainer(ctx, id, name))
}

func (q quiet) ConnectContainer(ctx context.Context, network, id, alias string) error {
	return q.values.Error(q.Engine.ConnectContainer(ctx, network, id, alias))
}

func (q quiet) ListNetworks(ctx context.Context, labels map[string]string) ([]engine.Network, error) {
	list, err := q.Engine.ListNetworks(ctx, labels)
	return list, q.values.Error(err)
}

func (q quiet) CreateNetwork(ctx context.Context, name string, labels map[string]string, addresses int) (engine.Network, error) {
	n, err := q.Engine.CreateNetwork(ctx, name, labels, addresses)
	return n, q.values.Error(err)
}

func (q quiet) RemoveNetwork(ctx context.Context, id string) error {
	return q.values.Error(q.Engine.RemoveNetwork(ctx, id))
}

func (q quiet) ListVolumes(ctx context.Context, labels map[string]string) ([]engine.Volume, error) {
	list, err := q.Engine.ListVolumes(ctx, labels)
	return list, q.values.Error(err)
}

func (q quiet) CreateVolume(ctx context.Context, name string, labels map[string]string) error {
	return q.values.Error(q.Engine.CreateVolume(ctx, name, labels))
}

func (q quiet) RemoveVolume(ctx context.Context, name string) error {
	return q.values.Error(q.Engine.RemoveVolume(ctx, name))
}

func (q quiet) InspectImage(ctx context.Context, ref string) (engine.Image, error) {
	image, err := q.Engine.InspectImage(ctx, ref)
	return image, q.values.Error(err)
}

func (q quiet) PullImage(ctx context.Context, ref string, auth *carav1.RegistryAuth, progress func(engine.Progress)) (engine.Image, error) {
	image, err := q.Engine.PullImage(ctx, ref, auth, progress)
	return image, q.values.Error(err)
}

func (q quiet) Logs(ctx context.Context, id string, options engine.LogOptions, emit func(engine.LogLine) error) error {
	return q.values.Error(q.Engine.Logs(ctx, id, options, func(l engine.LogLine) error {
		l.Text = q.values.Text(l.Text)
		return emit(l)
	}))
}
