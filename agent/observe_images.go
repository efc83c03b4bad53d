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

// observeFacts asks once about each image that a container was made from. Of an image that is gone nobody knows.
func (a *Agent) observeFacts(ctx context.Context, want *step.Want, have *step.Have, w *workspace) error {
	var ids []string
	for _, c := range have.Containers {
		_, known := w.facts[c.ImageID]
		if !known && c.ImageID != "" && want.Service(c.Labels[api.LabelService]) != nil && !slices.Contains(ids, c.ImageID) {
			ids = append(ids, c.ImageID)
		}
	}
	found := make([]engine.Image, len(ids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, id := range ids {
		g.Go(func() (err error) {
			if found[i], err = a.engine.InspectImage(ctx, id); errors.Is(err, engine.ErrNotFound) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if w.facts == nil {
		w.facts = map[string]engine.Image{}
	}
	for i, id := range ids {
		w.facts[id] = found[i]
	}
	have.Facts = maps.Clone(w.facts)
	return nil
}

// observeImages looks for the images of containers to be made, and once for the digest of each that was made.
func (a *Agent) observeImages(ctx context.Context, want *step.Want, have *step.Have, w *workspace) error {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	look := func(ref string) {
		g.Go(func() error {
			img, err := a.engineOf(want).InspectImage(ctx, ref)
			if err != nil && !errors.Is(err, engine.ErrNotFound) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			have.Images[ref] = err == nil
			w.digests[img.ID] = img.Digest
			return nil
		})
	}
	refs := want.Images(have)
	for _, c := range have.Containers {
		svc := want.Service(c.Labels[api.LabelService])
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
func (a *Agent) observePulls(want *step.Want, w *workspace) {
	keep := map[image.Key]bool{}
	now := time.Now()
	for ref, pull := range w.memory.Pulls {
		if !pull.Running || want.Remove {
			continue
		}
		job, found := a.pulls.State(want.Project, ref, want.AuthFor(ref))
		if !found {
			delete(w.memory.Pulls, ref) // other credentials by now: ask again
			continue
		}
		pull.Progress = job.Progress
		if job.Done {
			pull = pull.Ended(want.Values.Error(job.Err), want.Limits, now)
		}
		w.memory.Pulls[ref] = pull
		keep[image.KeyOf(ref, want.AuthFor(ref))] = true
	}
	a.pulls.Forget(want.Project, keep)
}
