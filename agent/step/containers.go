package step

import (
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// strays are containers of services that left the manifest, and those of a service that neither serve nor will. What
// left the manifest goes once nothing is there any more that may need it.
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

// container returns the container of a service that counts: one that is as wanted, or else one that is not.
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

// best of a service's containers that are as wanted, or of those that are not: one that runs, and of those the oldest.
func (s *view) best(svc *carav1.Service, asWanted bool) *engine.Container {
	var best *engine.Container
	for i := range s.h.Containers {
		c := &s.h.Containers[i]
		if c.Labels[api.LabelService] != svc.GetName() || !s.w.sameAssignment(c.Labels) || asWanted != (s.outdated(svc, c) == "") {
			continue
		}
		if _, leaves := s.h.Leaving[c.ID]; leaves && !asWanted && !s.h.Record.Yielded[c.ID] && !s.restarting(svc, c) {
			continue // another has taken over from it: it does not come back
		}
		if best == nil || up(*c) && !up(*best) || up(*c) == up(*best) && older(c, best) {
			best = c
		}
	}
	return best
}

func older(c, than *engine.Container) bool {
	if !c.CreatedAt.Equal(than.CreatedAt) {
		return c.CreatedAt.Before(than.CreatedAt)
	}
	return c.ID < than.ID
}

// outdated says why a container must be made anew; empty where it is as wanted.
func (s *view) outdated(svc *carav1.Service, c *engine.Container) string {
	switch {
	case !s.madeAs(svc, c):
		return "the manifest changed"
	case s.newValues(svc, c) != "":
		return s.newValues(svc, c)
	case s.w.restartWanted(svc.GetName(), s.restartedFor(c)):
		return restartAsked
	case s.wrongLimits(svc, c) && !s.changeable(svc, c):
		return "its limits changed, and the engine cannot change them in place"
	}
	return ""
}

// madeAs says whether a container was made as the manifest says, but for its limits: those can change without it. One
// that never ran is not worth that, and one of an older agent does not say.
func (s *view) madeAs(svc *carav1.Service, c *engine.Container) bool {
	if made := c.Labels[labelRunHash]; made != "" && c.State != engine.StateCreated {
		return made == s.w.RunHashes[svc.GetName()]
	}
	return c.Labels[api.LabelSpecHash] == s.w.Hashes[svc.GetName()]
}
