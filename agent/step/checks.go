package step

import (
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/scrub"
)

// Run is one run of one container. After a restart nothing is known of its health.
type Run struct {
	ID      string
	Started time.Time
}

// Check is a running container whose health is to be found out.
type Check struct {
	Run Run
	IP  string
	// Values are taken out of what the check says. Mute says that it may say other values, so its words are not shown.
	Values *scrub.List
	Mute   bool
	// How to check it; nil: as it is being checked already, if it is.
	How *carav1.Healthcheck
}

// Checks returns the running containers with a check. A container that is no longer as wanted is judged by the check that it was made with, as
// long as that is known: the manifest's check is its successor's.
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

// check is how the health of a service's container is found out: as the manifest says, or else as its image does
// (HEALTHCHECK); nil where neither says anything, or where the manifest turns it off.
func (s *view) check(svc *carav1.Service, c *engine.Container) *carav1.Healthcheck {
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
