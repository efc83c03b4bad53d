package step

import (
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/scrub"
)

// Run is one run of one container. The health of a new run is unknown.
type Run struct {
	ID      string
	Started time.Time
}

// Check is a running container to be checked.
type Check struct {
	Run Run
	IP  string
	// Values are removed from the check's message. If Mute is true, the message may contain unknown values, so it is not shown.
	Values *scrub.List
	Mute   bool
	// How to check it. Nil means to continue a check that is already running, if there is one.
	How *carav1.Healthcheck
}

// Checks returns the running containers with a check. An outdated container is checked with the check that it was created
// with, as long as that is known, because the manifest's check belongs to its successor.
func Checks(w *Want, h *Have) []Check {
	if w.Remove {
		return nil
	}
	s := &view{w: w, h: h}
	var out []Check
	for _, c := range h.Containers {
		svc := w.Service(c.Labels[api.LabelService])
		ip := c.Networks[NetworkName(w.Project)].IP
		if c.State != engine.StateRunning || svc == nil || ip == "" || !w.sameAssignment(c.Labels) {
			continue
		}
		t := Check{Run: Run{ID: c.ID, Started: c.StartedAt}, IP: ip, Values: w.Values, Mute: !w.Knows(svc, &c)}
		if s.outdated(svc, &c) == "" {
			if t.How = s.check(svc, &c); t.How == nil {
				continue
			}
		}
		out = append(out, t)
	}
	return out
}

// check returns the health check of a service's container: from the manifest, or else from its image (HEALTHCHECK). It
// returns nil if there is none or if the manifest disables it.
func (s *view) check(svc *carav1.Service, c *engine.Container) *carav1.Healthcheck {
	if own := svc.GetHealthcheck(); own != nil {
		if own.GetDisable() {
			return nil
		}
		return own
	}
	return s.h.Facts[c.ImageID].Check
}

// uncheckable fails a service that waits for another service to be healthy if that service has no check. This is known once
// the other service's image is known.
func (s *plan) uncheckable(svc *carav1.Service) bool {
	for _, d := range svc.GetDependsOn() {
		on := s.w.Service(d.GetService())
		if d.GetCondition() != api.DependsHealthy || on == nil || on.GetHealthcheck() != nil || s.completion(on) != nil {
			continue
		}
		c := s.best(on, true)
		if c == nil {
			continue
		}
		if image, known := s.h.Facts[c.ImageID]; known && image.Check == nil {
			s.fail(svc.GetName(), api.ReasonNoHealthcheck, "service %s waits for %s to be healthy, and neither the manifest nor the image %s says "+
				"how to check that: add a healthcheck to %s, or wait for condition Started", svc.GetName(), on.GetName(), s.w.ImageOf(on), on.GetName())
			return true
		}
	}
	return false
}
