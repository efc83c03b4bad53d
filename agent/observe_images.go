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
func (o *observer) observeFacts(ctx context.Context, want *step.Want, have *step.Have, ws *workspace) error {
	var ids []string
	for _, c := range have.Containers {
		_, known := ws.facts[c.ImageID]
		if !known && c.ImageID != "" && want.Service(c.Labels[api.LabelService]) != nil && !slices.Contains(ids, c.ImageID) {
			ids = append(ids, c.ImageID)
		}
	}
	found := make([]engine.Image, len(ids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, id := range ids {
		g.Go(func() (err error) {
			if found[i], err = o.engine.InspectImage(ctx, id); errors.Is(err, engine.ErrNotFound) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if ws.facts == nil {
		ws.facts = map[string]engine.Image{}
	}
	for i, id := range ids {
		ws.facts[id] = found[i]
	}
	have.Facts = maps.Clone(ws.facts)
	return nil
}

// observeImages looks for the images of containers to be made, and once for the digest of each that was made.
func (o *observer) observeImages(ctx context.Context, want *step.Want, have *step.Have, ws *workspace) error {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	look := func(ref string) {
		g.Go(func() error {
			img, err := scrubbedFor(want, o.engine).InspectImage(ctx, ref)
			if err != nil && !errors.Is(err, engine.ErrNotFound) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			have.Images[ref] = err == nil
			ws.digests[img.ID] = img.Digest
			return nil
		})
	}
	refs := want.Images(have)
	for _, c := range have.Containers {
		svc := want.Service(c.Labels[api.LabelService])
		mu.Lock()
		_, known := ws.digests[c.ImageID]
		mu.Unlock()
		if svc != nil && !known && !slices.Contains(refs, svc.GetImage()) {
			refs = append(refs, svc.GetImage())
			ws.digests[c.ImageID] = "" // asked once: the reference may lead to another image by now
		}
	}
	for _, ref := range refs {
		look(ref)
	}
	return g.Wait()
}

// observePulls takes in what became of the pulls that this rollout asked for, and ends those of an older one.
func (o *observer) observePulls(want *step.Want, ws *workspace) {
	keep := map[image.Key]bool{}
	now := time.Now()
	for ref, pull := range ws.memory.Pulls {
		if !pull.Running || want.Remove {
			continue
		}
		job, found := o.pulls.State(want.Project, ref, want.AuthFor(ref))
		if !found {
			delete(ws.memory.Pulls, ref) // other credentials by now: ask again
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
