package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// act does one action.
func (a *Agent) act(ctx context.Context, want *Want, have *Have, x Action) (err error) {
	a.log.Debug("act", "project", want.Project, "epoch", want.Epoch, "kind", string(x.Kind), "service", x.Service,
		"name", x.Name, "reason", x.Reason)
	engine := a.engineOf(want)
	switch x.Kind {
	case KindPull:
		a.pulls.ask(ctx, want.Project, x.Name, want.authFor(x.Name))
	case KindCreateNetwork:
		_, err = engine.CreateNetwork(ctx, x.Name, want.owner(), 2*len(want.Spec.GetServices()))
	case KindRemoveNetwork:
		err = engine.RemoveNetwork(ctx, x.ID)
	case KindCreateVolume:
		err = engine.CreateVolume(ctx, x.Name, want.owner())
	case KindRemoveVolume:
		err = engine.RemoveVolume(ctx, x.Name)
	case KindCreateContainer:
		_, err = engine.CreateContainer(ctx, want.containerSpec(x.Name, want.service(x.Service)))
	case KindStartContainer:
		err = a.start(ctx, want, x)
	case KindRestartContainer:
		err = engine.StartContainer(ctx, x.ID)
	case KindRenameContainer:
		err = engine.RenameContainer(ctx, x.ID, x.Name)
	case KindUnpauseContainer:
		err = engine.UnpauseContainer(ctx, x.ID)
	case KindUpdateContainer:
		var limits ContainerLimits
		if limits, err = LimitsOf(want.service(x.Service)); err == nil {
			err = engine.UpdateContainer(ctx, x.ID, limits)
		}
	case KindConnectContainer:
		err = engine.ConnectContainer(ctx, networkName(want.Project), x.ID, x.Service)
	case KindStopContainer:
		err = engine.StopContainer(ctx, x.ID, have.grace(x.ID))
	case KindDeleteContainer:
		if have.up(x.ID) {
			err = engine.StopContainer(ctx, x.ID, have.grace(x.ID))
		}
		if err == nil {
			a.keepLog(ctx, want, have.find(x.ID))
			err = engine.RemoveContainer(ctx, x.ID)
		}
	default:
		err = fmt.Errorf("act: unknown kind %s", x.Kind)
	}
	return err
}

// start puts the service's files in first: an agent that died between create and copy leaves a container without them,
// and nothing tells, so it is done before every first start.
func (a *Agent) start(ctx context.Context, want *Want, x Action) error {
	engine := a.engineOf(want)
	if files := want.files(want.service(x.Service)); len(files) > 0 {
		if err := engine.CopyFiles(ctx, x.ID, files); err != nil {
			return err
		}
	}
	err := engine.StartContainer(ctx, x.ID)
	if err == nil || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrInvalid) || ctx.Err() != nil {
		return err
	}
	// It has never run, and nothing says that the next start of it would go better: an engine that went down while it
	// started the container refuses it for ever ("task already exists"). The next try is another container's.
	if gone := engine.RemoveContainer(ctx, x.ID); gone != nil {
		return fmt.Errorf("%w; %w", err, gone)
	}
	return err
}

func (h *Have) find(id string) Container {
	i := slices.IndexFunc(h.Containers, func(c Container) bool { return c.ID == id })
	if i < 0 {
		return Container{}
	}
	return h.Containers[i]
}

func (h *Have) up(id string) bool { return up(h.find(id)) }

func (h *Have) grace(id string) time.Duration {
	return cmp.Or(h.find(id).Grace, api.DefaultStopGracePeriod)
}

// containerSpec is a service's container with all that only the agent knows.
func (w *Want) containerSpec(name string, s *carav1.Service) ContainerSpec {
	spec := ContainerSpec{
		Name: name, Labels: w.containerLabels(s), Network: networkName(w.Project),
		Service: s, Volumes: map[string]string{},
	}
	for _, e := range s.GetEnv() {
		value := e.GetValue()
		if r := e.GetValueFrom().GetSecretKeyRef(); r != nil {
			value = string(w.Secrets[r.GetName()+"/"+r.GetKey()])
		}
		spec.Env = append(spec.Env, e.GetName()+"="+value)
	}
	for _, m := range s.GetVolumeMounts() {
		spec.Volumes[m.GetName()] = volumeName(w.Project, m.GetName())
	}
	return spec
}

func (w *Want) files(s *carav1.Service) []File {
	var out []File
	for _, f := range s.GetFiles() {
		mode, err := strconv.ParseInt(f.GetMode(), 8, 32)
		if err != nil {
			mode = 0o444 // the server has refused it
		}
		content := []byte(f.GetContent())
		if r := f.GetSecretKeyRef(); r != nil {
			content = w.Secrets[r.GetName()+"/"+r.GetKey()]
		}
		out = append(out, File{Path: f.GetPath(), Root: api.MountOf(s.GetVolumeMounts(), f.GetPath()).GetMountPath(), Content: content, Mode: mode})
	}
	return out
}

// sortedKeys of a map, for what is written out.
