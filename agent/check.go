package agent

import (
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// check is how the health of a service's container is found out: as the manifest says, or else as its image does
// (HEALTHCHECK); nil where neither says anything, or where the manifest turns it off.
func (s *step) check(svc *carav1.Service, c *engine.Container) *carav1.Healthcheck {
	if own := svc.GetHealthcheck(); own != nil {
		if own.GetDisable() {
			return nil
		}
		return own
	}
	return s.h.Facts[c.ImageID].Check
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
		if image, known := s.h.Facts[c.ImageID]; known && image.Check == nil {
			s.fail(svc.GetName(), api.ReasonNoHealthcheck, "service %s waits for %s to be healthy, and neither the manifest nor the image %s says "+
				"how to check that: add a healthcheck to %s, or wait for condition Started", svc.GetName(), on.GetName(), s.w.named(on), on.GetName())
			return true
		}
	}
	return false
}
