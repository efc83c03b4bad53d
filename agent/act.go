package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/caravanserai/cara/agent/content"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/image"
	"github.com/caravanserai/cara/agent/slots"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/agent/stream"
	"github.com/caravanserai/cara/api"
)

// actor executes the actions of step.Step.
type actor struct {
	log    *slog.Logger
	engine engine.Engine
	pulls  *image.Puller
	kept   *stream.KeptLogs
	files  *content.Store
	slots  *slots.Pool
	volume func() // is called when a Managed volume was created
}

// execute runs the actions concurrently and starts them in order. If the engine does not answer, the pass ends. Any other
// error is recorded for Step.
func (a *actor) execute(ctx context.Context, want *step.Want, have *step.Have, ws *workspace, todo []step.Action) error {
	errs := make([]error, len(todo))
	var acts sync.WaitGroup
	turns := a.slots.Turns(todo, have)
	for i, action := range todo {
		done, err := turns.Take(ctx, action, have) // taken here, so that they start in order
		if err != nil {
			errs[i] = err
			continue
		}
		acts.Go(func() {
			defer done()
			errs[i] = want.Values.Error(a.act(ctx, want, have, action))
		})
	}
	acts.Wait()
	now := time.Now()
	for i, action := range todo {
		ws.memory.Remember(want, have, action, errs[i], now)
		if errs[i] == nil {
			ws.history.Add(action, have, want.Limits, now)
		}
	}
	ws.reread(todo, errs)
	if err := errors.Join(errs...); err != nil && (ctx.Err() != nil || errors.Is(err, engine.ErrUnavailable)) {
		return err
	}
	return nil
}

// act executes one action. Its error may contain the value of a Secret.
func (a *actor) act(ctx context.Context, want *step.Want, have *step.Have, x step.Action) (err error) {
	a.log.Debug("act", "project", want.Project, "epoch", want.Epoch, "kind", string(x.Kind), "service", x.Service,
		"name", x.Name, "reason", x.Reason)
	eng := a.engine
	switch x.Kind {
	case step.KindPull:
		a.pulls.Ask(ctx, want.Project, x.Name, want.AuthFor(x.Name))
	case step.KindFetchFiles:
		err = a.files.Fetch(ctx, api.ServiceBlobs(want.Service(x.Service)))
	case step.KindCreateNetwork:
		_, err = eng.CreateNetwork(ctx, x.Name, want.Owner(), 2*len(want.Spec.GetServices()))
	case step.KindRemoveNetwork:
		err = eng.RemoveNetwork(ctx, x.ID)
	case step.KindCreateVolume:
		labels := want.VolumeLabels(x.Name)
		if err = eng.CreateVolume(ctx, x.Name, labels); err == nil && labels[api.LabelVolumeUID] != "" {
			a.volume()
		}
	case step.KindRemoveVolume:
		err = eng.RemoveVolume(ctx, x.Name)
	case step.KindCreateContainer:
		err = a.create(ctx, want, x)
	case step.KindStartContainer:
		err = a.start(ctx, want, x)
	case step.KindRestartContainer:
		err = a.restart(ctx, want, have, x)
	case step.KindRenameContainer:
		err = eng.RenameContainer(ctx, x.ID, x.Name)
	case step.KindUnpauseContainer:
		err = eng.UnpauseContainer(ctx, x.ID)
	case step.KindUpdateContainer:
		var limits engine.Limits
		if limits, err = engine.LimitsOf(want.Service(x.Service)); err == nil {
			err = eng.UpdateContainer(ctx, x.ID, limits)
		}
	case step.KindConnectContainer:
		err = eng.ConnectContainer(ctx, step.NetworkName(want.Project), x.ID, x.Service)
	case step.KindStopContainer:
		err = eng.StopContainer(ctx, x.ID, have.Grace(x.ID))
	case step.KindDeleteContainer:
		if have.Up(x.ID) {
			err = eng.StopContainer(ctx, x.ID, have.Grace(x.ID))
		}
		if err == nil {
			err = a.remove(ctx, want, have, x)
		}
	default:
		err = fmt.Errorf("act: unknown kind %s", x.Kind)
	}
	return err
}

// create creates a container and checks that it mounts the data of its Managed volumes. If somebody removed such a volume
// since the last look, the engine has created an empty one instead. Then create removes both again, and the next look finds
// that the data is lost. From here on, the container keeps the engine from removing the volume.
func (a *actor) create(ctx context.Context, want *step.Want, x step.Action) error {
	svc := want.Service(x.Service)
	id, err := a.engine.CreateContainer(ctx, want.ContainerSpec(x.Name, svc))
	if err != nil {
		return err
	}
	for name, uid := range want.Data(svc) {
		v, err := a.engine.InspectVolume(ctx, name)
		if err == nil && v.Labels[api.LabelVolumeUID] == uid {
			continue
		}
		if err != nil && !errors.Is(err, engine.ErrNotFound) {
			return err
		}
		err = fmt.Errorf("create container %s: the volume %s was removed meanwhile, so the container has an empty one instead", x.Name, name)
		if gone := a.engine.RemoveContainer(ctx, id); gone != nil {
			return fmt.Errorf("%w; %w", err, gone)
		}
		if want.Disposable(v) { // otherwise somebody else created it: it stays
			return errors.Join(err, a.engine.RemoveVolume(ctx, name))
		}
		return err
	}
	return nil
}

// restart starts a container that has run before. The engine refuses that forever if it was killed during an earlier start,
// so such a container is removed, and the next attempt uses a new one.
func (a *actor) restart(ctx context.Context, want *step.Want, have *step.Have, x step.Action) error {
	err := a.engine.StartContainer(ctx, x.ID)
	if !errors.Is(err, engine.ErrStuck) {
		return err
	}
	if gone := a.remove(ctx, want, have, x); gone != nil {
		return fmt.Errorf("%w; %w", err, gone)
	}
	return err
}

// remove removes a container and keeps the end of its log.
func (a *actor) remove(ctx context.Context, want *step.Want, have *step.Have, x step.Action) error {
	if err := a.kept.Keep(ctx, a.engine, want, have.Find(x.ID)); err != nil {
		a.log.Warn("the log of a container that is removed could not be kept", "project", want.Project, "service", x.Service, "error", want.Values.Error(err))
	}
	return a.engine.RemoveContainer(ctx, x.ID)
}

// start first copies the service's files into the container. An agent that was killed between create and copy leaves a
// container without files, and this cannot be detected, so start copies them before every first start.
func (a *actor) start(ctx context.Context, want *step.Want, x step.Action) error {
	files, err := want.Files(want.Service(x.Service), a.files.Read)
	if err != nil {
		return err
	}
	if len(files) > 0 {
		if err := a.engine.CopyFiles(ctx, x.ID, files); err != nil {
			return err
		}
	}
	err = a.engine.StartContainer(ctx, x.ID)
	if err == nil || errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrInvalid) || errors.Is(err, engine.ErrLost) || ctx.Err() != nil {
		return err
	}
	// The container has never run, and another start may fail forever (engine.ErrStuck). So the next attempt uses a new one.
	if gone := a.engine.RemoveContainer(ctx, x.ID); gone != nil {
		return fmt.Errorf("%w; %w", err, gone)
	}
	return err
}
