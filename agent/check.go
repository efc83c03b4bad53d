package agent

import (
	"context"
	"errors"
	"maps"

	"golang.org/x/sync/errgroup"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// check is how the health of a service's container is found out: as the manifest says, or else as its image does
// (HEALTHCHECK); nil where neither says anything, or where the manifest turns it off.
func (s *step) check(svc *carav1.Service, c *Container) *carav1.Healthcheck {
	if own := svc.GetHealthcheck(); own != nil {
		if own.GetDisable() {
			return nil
		}
		return own
	}
	return s.h.Checks[c.ImageID]
}

// uncheckable fails the services that wait for another to be healthy which nobody can check. It is known once the other's
// image is.
func (s *step) uncheckable(svc *carav1.Service) bool {
	for _, d := range svc.GetDependsOn() {
		on := s.w.service(d.GetService())
		if d.GetCondition() != api.DependsHealthy || on == nil || on.GetHealthcheck() != nil || s.completion(on) != nil {
			continue
		}
		c := s.best(on, true)
		if c == nil {
			continue
		}
		if check, known := s.h.Checks[c.ImageID]; known && check == nil {
			s.fail(svc.GetName(), api.ReasonNoHealthcheck, "service %s waits for %s to be healthy, and neither the manifest nor the image %s says "+
				"how to check that: add a healthcheck to %s, or wait for condition Started", svc.GetName(), on.GetName(), s.w.named(on), on.GetName())
			return true
		}
	}
	return false
}

// observeChecks asks once for the check of each image that a container was made from, where the manifest has none. Of an
// image that is gone nobody knows.
func (a *Agent) observeChecks(ctx context.Context, want *Want, have *Have, w *workspace) error {
	found := map[string]*carav1.Healthcheck{}
	var ids []string
	for _, c := range have.Containers {
		svc := want.service(c.Labels[api.LabelService])
		if _, known := w.checks[c.ImageID]; known || svc == nil || svc.GetHealthcheck() != nil || c.ImageID == "" {
			continue
		}
		if _, asked := found[c.ImageID]; !asked {
			found[c.ImageID] = nil
			ids = append(ids, c.ImageID)
		}
	}
	checks := make([]*carav1.Healthcheck, len(ids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, id := range ids {
		g.Go(func() error {
			image, err := a.engine.InspectImage(ctx, id)
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			checks[i] = image.Check
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if w.checks == nil {
		w.checks = map[string]*carav1.Healthcheck{}
	}
	for i, id := range ids {
		w.checks[id] = checks[i]
	}
	have.Checks = maps.Clone(w.checks)
	return nil
}
