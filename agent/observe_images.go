package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/image"
	"github.com/caravanserai/cara/agent/step"
	"github.com/caravanserai/cara/api"
)

// observeFacts inspects each image that a container was made from once. An image that is gone has no facts.
func (o *observer) observeFacts(ctx context.Context, want *step.Want, have *step.Have, ws *workspace) error {
	var ids []string
	for _, c := range have.Containers {
		_, known := ws.facts[c.ImageID]
		if !known && c.ImageID != "" && want.Service(c.Labels[api.LabelService]) != nil && !slices.Contains(ids, c.ImageID) {
			ids = append(ids, c.ImageID)
		}
	}
	found, err := o.images(ctx, ids)
	if err != nil {
		return err
	}
	for _, id := range ids {
		ws.facts[id] = found[id]
	}
	have.Facts = maps.Clone(ws.facts)
	return nil
}

// observeImages looks for the images of containers to be created, and once for the digest of each existing container's
// image.
func (o *observer) observeImages(ctx context.Context, want *step.Want, have *step.Have, ws *workspace) error {
	refs := want.Images(have)
	for _, c := range have.Containers {
		svc := want.Service(c.Labels[api.LabelService])
		_, known := ws.digests[c.ImageID]
		if svc != nil && !known && !slices.Contains(refs, svc.GetImage()) {
			refs = append(refs, svc.GetImage())
			ws.digests[c.ImageID] = "" // only once: the reference may resolve to another image by now
		}
	}
	found, err := o.images(ctx, refs)
	for _, ref := range refs {
		img, there := found[ref]
		have.Images[ref] = there
		if there {
			ws.digests[img.ID] = img.Digest
		}
	}
	return err
}

// images returns which of these references the engine has.
func (o *observer) images(ctx context.Context, refs []string) (map[string]engine.Image, error) {
	var mu sync.Mutex
	found := map[string]engine.Image{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, ref := range refs {
		g.Go(func() error {
			img, err := o.engine.InspectImage(ctx, ref)
			if errors.Is(err, engine.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			found[ref] = img
			return nil
		})
	}
	return found, g.Wait()
}

// observePulls records the results of the pulls of this rollout, and ends those of an older one.
func (o *observer) observePulls(want *step.Want, ws *workspace) {
	keep := map[image.Key]bool{}
	now := time.Now()
	for ref, pull := range ws.memory.Pulls {
		if !pull.Running || want.Remove {
			continue
		}
		job, found := o.pulls.State(want.Project, ref, want.AuthFor(ref))
		if !found {
			delete(ws.memory.Pulls, ref) // the credentials have changed: ask again
			continue
		}
		pull.Progress = job.Progress
		if job.Done {
			pull = pull.Ended(want.Values.Error(job.Err), want.Limits, now)
		}
		ws.memory.Pulls[ref] = pull
		keep[image.KeyOf(ref, want.AuthFor(ref))] = true
	}
	o.pulls.Forget(want.Project, keep)
}
