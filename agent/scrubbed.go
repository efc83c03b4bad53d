package agent

import (
	"context"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/step"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/scrub"
)

// scrubbed is an engine for one project's worker. No error and no log line that it returns has a value of the project's Secrets. It is the one
// place where these are taken out, before anything is cut, remembered, reported or logged. What the prober and the puller say goes through the
// same list (see step.Check and observePulls), and so do the errors of streams (see stream.Server). What a container writes to a caller of logs or
// exec does not: who may call these may see it.
type scrubbed struct {
	engine.Engine
	values *scrub.List
}

// scrubbedFor is the engine for what is done and seen for want.
func scrubbedFor(want *step.Want, eng engine.Engine) engine.Engine {
	if want.Values.Empty() {
		return eng
	}
	return scrubbed{eng, want.Values}
}

func (s scrubbed) ListContainers(ctx context.Context, labels map[string]string) ([]engine.Container, error) {
	list, err := s.Engine.ListContainers(ctx, labels)
	for i := range list {
		list[i].StartError = s.values.Text(list[i].StartError)
	}
	return list, s.values.Error(err)
}

func (s scrubbed) InspectContainer(ctx context.Context, id string) (engine.Container, error) {
	c, err := s.Engine.InspectContainer(ctx, id)
	c.StartError = s.values.Text(c.StartError)
	return c, s.values.Error(err)
}

func (s scrubbed) CreateContainer(ctx context.Context, spec engine.ContainerSpec) (string, error) {
	id, err := s.Engine.CreateContainer(ctx, spec)
	return id, s.values.Error(err)
}

func (s scrubbed) RemoveContainer(ctx context.Context, id string) error {
	return s.values.Error(s.Engine.RemoveContainer(ctx, id))
}

func (s scrubbed) CopyFiles(ctx context.Context, id string, files []engine.File) error {
	return s.values.Error(s.Engine.CopyFiles(ctx, id, files))
}

func (s scrubbed) StartContainer(ctx context.Context, id string) error {
	return s.values.Error(s.Engine.StartContainer(ctx, id))
}

func (s scrubbed) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	return s.values.Error(s.Engine.StopContainer(ctx, id, grace))
}

func (s scrubbed) UnpauseContainer(ctx context.Context, id string) error {
	return s.values.Error(s.Engine.UnpauseContainer(ctx, id))
}

func (s scrubbed) UpdateContainer(ctx context.Context, id string, limits engine.Limits) error {
	return s.values.Error(s.Engine.UpdateContainer(ctx, id, limits))
}

func (s scrubbed) RenameContainer(ctx context.Context, id, name string) error {
	return s.values.Error(s.Engine.RenameContainer(ctx, id, name))
}

func (s scrubbed) ConnectContainer(ctx context.Context, network, id, alias string) error {
	return s.values.Error(s.Engine.ConnectContainer(ctx, network, id, alias))
}

func (s scrubbed) ListNetworks(ctx context.Context, labels map[string]string) ([]engine.Network, error) {
	list, err := s.Engine.ListNetworks(ctx, labels)
	return list, s.values.Error(err)
}

func (s scrubbed) CreateNetwork(ctx context.Context, name string, labels map[string]string, addresses int) (engine.Network, error) {
	n, err := s.Engine.CreateNetwork(ctx, name, labels, addresses)
	return n, s.values.Error(err)
}

func (s scrubbed) RemoveNetwork(ctx context.Context, id string) error {
	return s.values.Error(s.Engine.RemoveNetwork(ctx, id))
}

func (s scrubbed) ListVolumes(ctx context.Context, labels map[string]string) ([]engine.Volume, error) {
	list, err := s.Engine.ListVolumes(ctx, labels)
	return list, s.values.Error(err)
}

func (s scrubbed) CreateVolume(ctx context.Context, name string, labels map[string]string) error {
	return s.values.Error(s.Engine.CreateVolume(ctx, name, labels))
}

func (s scrubbed) RemoveVolume(ctx context.Context, name string) error {
	return s.values.Error(s.Engine.RemoveVolume(ctx, name))
}

func (s scrubbed) InspectImage(ctx context.Context, ref string) (engine.Image, error) {
	image, err := s.Engine.InspectImage(ctx, ref)
	return image, s.values.Error(err)
}

func (s scrubbed) PullImage(ctx context.Context, ref string, auth *carav1.RegistryAuth, progress func(engine.Progress)) (engine.Image, error) {
	image, err := s.Engine.PullImage(ctx, ref, auth, progress)
	return image, s.values.Error(err)
}

func (s scrubbed) Logs(ctx context.Context, id string, options engine.LogOptions, emit func(engine.LogLine) error) error {
	return s.values.Error(s.Engine.Logs(ctx, id, options, func(l engine.LogLine) error {
		l.Text = s.values.Text(l.Text)
		return emit(l)
	}))
}
