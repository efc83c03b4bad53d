package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// act does one action.
func (a *Agent) act(ctx context.Context, want *Want, have *Have, x Action) (err error) {
	a.log.Debug("act", "project", want.Project, "epoch", want.Epoch, "kind", string(x.Kind), "service", x.Service,
		"name", x.Name, "reason", x.Reason)
	eng := a.engineOf(want)
	switch x.Kind {
	case KindPull:
		a.pulls.ask(ctx, want.Project, x.Name, want.authFor(x.Name))
	case KindCreateNetwork:
		_, err = eng.CreateNetwork(ctx, x.Name, want.owner(), 2*len(want.Spec.GetServices()))
	case KindRemoveNetwork:
		err = eng.RemoveNetwork(ctx, x.ID)
	case KindCreateVolume:
		err = eng.CreateVolume(ctx, x.Name, want.owner())
	case KindRemoveVolume:
		err = eng.RemoveVolume(ctx, x.Name)
	case KindCreateContainer:
		_, err = eng.CreateContainer(ctx, want.containerSpec(x.Name, want.service(x.Service)))
	case KindStartContainer:
		err = a.start(ctx, want, x)
	case KindRestartContainer:
		err = eng.StartContainer(ctx, x.ID)
	case KindRenameContainer:
		err = eng.RenameContainer(ctx, x.ID, x.Name)
	case KindUnpauseContainer:
		err = eng.UnpauseContainer(ctx, x.ID)
	case KindUpdateContainer:
		var limits engine.Limits
		if limits, err = engine.LimitsOf(want.service(x.Service)); err == nil {
			err = eng.UpdateContainer(ctx, x.ID, limits)
		}
	case KindConnectContainer:
		err = eng.ConnectContainer(ctx, networkName(want.Project), x.ID, x.Service)
	case KindStopContainer:
		err = eng.StopContainer(ctx, x.ID, have.grace(x.ID))
	case KindDeleteContainer:
		if have.up(x.ID) {
			err = eng.StopContainer(ctx, x.ID, have.grace(x.ID))
		}
		if err == nil {
			a.keepLog(ctx, want, have.find(x.ID))
			err = eng.RemoveContainer(ctx, x.ID)
		}
	default:
		err = fmt.Errorf("act: unknown kind %s", x.Kind)
	}
	return err
}

// start puts the service's files in first: an agent that died between create and copy leaves a container without them,
// and nothing tells, so it is done before every first start.
func (a *Agent) start(ctx context.Context, want *Want, x Action) error {
	eng := a.engineOf(want)
	if files := want.files(want.service(x.Service)); len(files) > 0 {
		if err := eng.CopyFiles(ctx, x.ID, files); err != nil {
			return err
		}
	}
	err := eng.StartContainer(ctx, x.ID)
	if err == nil || errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrInvalid) || ctx.Err() != nil {
		return err
	}
	// It has never run, and nothing says that the next start of it would go better: an engine that went down while it
	// started the container refuses it for ever ("task already exists"). The next try is another container's.
	if gone := eng.RemoveContainer(ctx, x.ID); gone != nil {
		return fmt.Errorf("%w; %w", err, gone)
	}
	return err
}

func (h *Have) find(id string) engine.Container {
	i := slices.IndexFunc(h.Containers, func(c engine.Container) bool { return c.ID == id })
	if i < 0 {
		return engine.Container{}
	}
	return h.Containers[i]
}

func (h *Have) up(id string) bool { return up(h.find(id)) }

func (h *Have) grace(id string) time.Duration {
	return cmp.Or(h.find(id).Grace, api.DefaultStopGracePeriod)
}

// containerSpec is a service's container with all that only the agent knows.
func (w *Want) containerSpec(name string, s *carav1.Service) engine.ContainerSpec {
	spec := engine.ContainerSpec{
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

func (w *Want) files(s *carav1.Service) []engine.File {
	var out []engine.File
	for _, f := range s.GetFiles() {
		mode, err := strconv.ParseInt(f.GetMode(), 8, 32)
		if err != nil {
			mode = 0o444 // the server has refused it
		}
		content := []byte(f.GetContent())
		if r := f.GetSecretKeyRef(); r != nil {
			content = w.Secrets[r.GetName()+"/"+r.GetKey()]
		}
		out = append(out, engine.File{Path: f.GetPath(), Root: api.MountOf(s.GetVolumeMounts(), f.GetPath()).GetMountPath(), Content: content, Mode: mode})
	}
	return out
}

// sortedKeys of a map, for what is written out.
