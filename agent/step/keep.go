package step

import (
	"slices"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// keeps reports whether something of the previous version still serves if an update fails with this service. Then only the
// update fails, not the project.
func (s *progress) keeps(failing *carav1.Service) bool {
	if s.previous(failing) != nil {
		return true
	}
	if !s.replacing() || s.untouched(failing) {
		return false
	}
	for _, svc := range s.w.Spec.GetServices() {
		if svc.GetName() == failing.GetName() {
			continue
		}
		if c := s.container(svc.GetName()); s.previous(svc) != nil || c != nil && up(*c) {
			return true
		}
	}
	return slices.ContainsFunc(s.h.Containers, func(c engine.Container) bool {
		return s.left(c) && (up(c) || s.h.Record.Yielded[c.ID])
	})
}

// left reports whether a container belongs to a service that left the manifest.
func (s *view) left(c engine.Container) bool {
	return s.w.Service(c.Labels[api.LabelService]) == nil && s.w.sameAssignment(c.Labels)
}

// keepsLeft reports whether containers of services that left the manifest stay: until the update is up, and if it failed.
func (s *progress) keepsLeft() bool {
	if s.updating() {
		return true
	}
	if !s.replacing() {
		return false
	}
	if s.h.Memory.Update != nil {
		return true
	}
	for _, svc := range s.w.Spec.GetServices() {
		if !s.isUp(svc) {
			return true
		}
		if c := s.best(svc, true); svc.GetRestartPolicy() == api.RestartNever && c != nil && !s.done(svc, c) {
			return true
		}
	}
	return false
}

// inTheWay returns the containers that must not run together with a service's new one: its previous one, and for a new
// service those that left the manifest, whose volumes it may have taken over.
func (s *progress) inTheWay(svc *carav1.Service) []engine.Container {
	if s.h.Memory.Update != nil || startFirst(svc) {
		return nil
	}
	if old := s.previous(svc); old != nil {
		if up(*old) {
			return []engine.Container{*old}
		}
		return nil
	}
	if !s.replacing() {
		return nil
	}
	if _, known := s.h.Record.Served.Hashes[svc.GetName()]; known {
		return nil
	}
	var out []engine.Container
	for _, c := range s.reversed(s.h.Containers) {
		if s.left(c) && up(c) {
			out = append(out, c)
		}
	}
	return out
}

// abandon reports whether a service is left as it is because its update has failed: what was not created or started stays
// that way, and the failed container is stopped.
func (s *step) abandon(svc *carav1.Service, c *engine.Container, failed *Failure) bool {
	itself := failed.Service == svc.GetName()
	switch {
	case itself && !s.keeps(svc): // nothing is left that could serve
		s.add(Action{
			Kind: KindFail, Service: failed.Service, Reason: failed.Message,
			Failure: &Failure{Service: failed.Service, Reason: failed.Reason, Message: failed.Message},
		})
	case !s.replacing() || s.untouched(svc):
		return false
	case c == nil || s.outdated(svc, c) != "":
	case itself:
		s.giveUp(svc, c, failed)
	case c.StartedAt.IsZero():
	default:
		return false
	}
	return true
}

// restore starts the containers of services that left the manifest and were stopped for the failed update. It waits until
// their replacements have stopped.
func (s *plan) restore() {
	if s.h.Memory.Update == nil || len(s.actions) > 0 {
		return
	}
	for _, c := range s.h.Containers {
		if !s.left(c) || !s.h.Record.Yielded[c.ID] || c.State != engine.StateExited {
			continue
		}
		service := c.Labels[api.LabelService]
		switch at, exhausted := s.w.Limits.due(s.h.Memory.Restarts[c.ID], c.StartedAt, c.FinishedAt, s.now); {
		case exhausted:
			s.wait(service, time.Time{}, "service %s, which the update took away, %s again and again", service, exitText(&c))
		case s.now.Before(at):
			s.wait(service, at, "service %s, which the update took away, %s and is started again", service, exitText(&c))
		default:
			s.attempt(about(KindRestartContainer, &c, "the update that took its place failed").previous(), "")
		}
	}
}
