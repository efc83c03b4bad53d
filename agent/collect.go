package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// collectLoop looks after the disk that the engine keeps its images on.
func (a *Agent) collectLoop(ctx context.Context) error {
	ticker := time.NewTicker(a.cfg.CollectEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := a.collect(ctx, time.Now()); err != nil && ctx.Err() == nil {
			a.log.Warn("images are not collected", "error", err)
		}
	}
}

// collect removes images while the disk is too full and there are any to remove.
func (a *Agent) collect(ctx context.Context, now time.Time) error {
	machine := a.machine.Load()
	if machine == nil || len(a.images.list()) == 0 {
		return nil
	}
	disk, ok := diskUsage(machine.Root)
	if !ok {
		return nil
	}
	tooFull := disk.percent() > a.cfg.Limits.CollectAbove
	removed, size := 0, int64(0)
	var failed error
	for {
		stored, inUse, err := a.usedImages(ctx, now)
		if err != nil || !tooFull {
			return err
		}
		due := collectable(a.cfg.Limits, disk, a.images.list(), stored, inUse, a.assignedImages())
		gone := 0
		for _, image := range due {
			if err := a.removeImage(ctx, image); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			gone, size = gone+1, size+image.size
		}
		removed += gone
		if disk, ok = diskUsage(machine.Root); gone == 0 || !ok || disk.percent() <= a.cfg.Limits.CollectTo {
			break
		}
	}
	if removed > 0 {
		a.tell(ctx, api.EventNormal, api.ReasonImagesCollected, fmt.Sprintf("removed %d unused images of up to %.1f MiB: more than %g %% of the disk was used",
			removed, float64(size)/(1<<20), a.cfg.Limits.CollectAbove))
	}
	return failed
}

// usedImages returns what the store has and which of it containers use, ours or not, and brings the book up to date.
func (a *Agent) usedImages(ctx context.Context, now time.Time) (stored []engine.StoredImage, inUse map[string]bool, err error) {
	stored, err = a.engine.ListImages(ctx)
	if err != nil {
		return nil, nil, err
	}
	containers, err := a.engine.ListContainers(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	there := map[string]bool{}
	for _, image := range stored {
		there[image.ID] = true
	}
	inUse = map[string]bool{}
	for _, c := range containers {
		inUse[c.ImageID] = true
	}
	return stored, inUse, a.images.use(inUse, there, now)
}

// assignedImages are those that projects of this node name, whether they run or not.
func (a *Agent) assignedImages() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]bool{}
	for _, t := range a.tasks {
		for _, svc := range t.want.Spec.GetServices() {
			out[fullName(svc.GetImage())], out[fullName(t.want.ImageOf(svc))] = true, true
		}
	}
	return out
}

// removeImage takes an image's names away, the image with the last of them. Each is never forced: an image that came
// into use meanwhile stays.
func (a *Agent) removeImage(ctx context.Context, image removal) error {
	for _, name := range image.names {
		if err := a.engine.RemoveImage(ctx, name); err != nil {
			return err
		}
	}
	a.log.Info("removed an unused image", "image", image.names[0], "id", image.id)
	return nil
}
