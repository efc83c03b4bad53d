package step

import (
	"cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// strays returns the containers of services that left the manifest, and superfluous containers of a service. The former are
// removed only when nothing may need them any more.
func (s *progress) strays() []engine.Container {
	kept := s.keepsLeft()
	var out []engine.Container
	for _, c := range s.h.Containers {
		svc := s.w.Service(c.Labels[api.LabelService])
		if svc == nil && kept {
			continue
		}
		keep := func(k *engine.Container) bool { return k != nil && k.ID == c.ID }
		if svc == nil || !keep(s.container(svc.GetName())) && !keep(s.previous(svc)) {
			out = append(out, c)
		}
	}
	return s.reversed(out)
}

// container returns the relevant container of a service: one that is up to date, or else an outdated one.
func (s *view) container(service string) *engine.Container {
	svc := s.w.Service(service)
	if svc == nil {
		return nil
	}
	if c := s.best(svc, true); c != nil {
		return c
	}
	return s.best(svc, false)
}

// best returns the best of a service's up-to-date containers, or of its outdated ones: a running one, and of those the
// oldest.
func (s *view) best(svc *carav1.Service, asWanted bool) *engine.Container {
	var best *engine.Container
	for i := range s.h.Containers {
		c := &s.h.Containers[i]
		if c.Labels[api.LabelService] != svc.GetName() || !s.w.sameAssignment(c.Labels) || asWanted != (s.outdated(svc, c) == "") {
			continue
		}
		if _, leaves := s.h.Leaving[c.ID]; leaves && !asWanted && !s.h.Record.Yielded[c.ID] && !s.restarting(svc, c) {
			continue // its successor has taken over, so it does not come back
		}
		if best == nil || up(*c) && !up(*best) || up(*c) == up(*best) && older(c, best) {
			best = c
		}
	}
	return best
}

func older(c, than *engine.Container) bool {
	return cmp.Or(c.CreatedAt.Compare(than.CreatedAt), cmp.Compare(c.ID, than.ID)) < 0
}

// outdated returns why a container must be recreated, or an empty string if it is up to date.
func (s *view) outdated(svc *carav1.Service, c *engine.Container) string {
	switch {
	case !s.madeAs(svc, c):
		return "the manifest changed"
	case s.w.otherSource(svc, c) != "":
		return s.w.otherSource(svc, c)
	case s.newValues(svc, c) != "":
		return s.newValues(svc, c)
	case s.w.restartWanted(svc.GetName(), s.restartedFor(c)):
		return restartAsked
	case s.wrongLimits(svc, c) && !s.changeable(svc, c):
		return "its limits changed, and the engine cannot change them in place"
	}
	return ""
}

// madeAs reports whether a container was created from the current manifest, except for its limits, which can be changed in
// place. For a container that never ran, or that an older agent created, the limits count too.
func (s *view) madeAs(svc *carav1.Service, c *engine.Container) bool {
	if made := c.Labels[labelRunHash]; made != "" && c.State != engine.StateCreated {
		return made == s.w.RunHashes[svc.GetName()]
	}
	return c.Labels[api.LabelSpecHash] == s.w.Hashes[svc.GetName()]
}
