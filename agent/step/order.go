package step

import (
	"fmt"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// blocked returns what a service waits for before it may start, or an empty string. If the project uses dependsOn, only that
// counts. Otherwise each service waits until those before it in the list have started.
func (s *progress) blocked(svc *carav1.Service) string {
	if s.w.ordered() {
		for _, d := range svc.GetDependsOn() {
			if why := s.unmet(d); why != "" {
				return fmt.Sprintf("service %s waits for %s", svc.GetName(), why)
			}
		}
		return ""
	}
	for _, before := range s.w.Spec.GetServices() {
		if before.GetName() == svc.GetName() {
			break
		}
		if !s.launched(before) {
			return fmt.Sprintf("service %s waits for %s to start", svc.GetName(), before.GetName())
		}
	}
	return ""
}

func (s *progress) unmet(d *carav1.Dependency) string {
	svc := s.w.Service(d.GetService())
	if svc == nil {
		return d.GetService() + ", which is not in the manifest"
	}
	c := s.provider(svc)
	switch {
	case s.completion(svc) != nil:
		return ""
	case !s.launched(svc):
		return svc.GetName() + " to start"
	case s.outdated(svc, c) != "": // it is kept, and all that is known is that it runs
		return ""
	case d.GetCondition() == api.DependsCompleted && !s.done(svc, c):
		return svc.GetName() + " to complete"
	case d.GetCondition() == api.DependsHealthy && s.h.Health[c.ID].State != api.HealthHealthy:
		return svc.GetName() + " to be healthy"
	}
	return ""
}

// launched reports whether the service's container is up to date and has run, even if it has stopped since.
func (s *progress) launched(svc *carav1.Service) bool {
	c := s.provider(svc)
	return s.completion(svc) != nil || c != nil && !c.StartedAt.IsZero() && (s.outdated(svc, c) == "" || s.h.Memory.Update != nil)
}

// provider returns the container of a service that others wait for: its successor, unless the update has failed.
func (s *progress) provider(svc *carav1.Service) *engine.Container {
	if s.h.Memory.Update != nil {
		return s.serving(svc)
	}
	return s.container(svc.GetName())
}

// done reports whether a service that may end has ended successfully.
func (s *view) done(svc *carav1.Service, c *engine.Container) bool {
	return c.State == engine.StateExited && c.ExitCode == 0 && !c.StartedAt.IsZero() && ends(svc) && !s.stoppedForMove(c)
}

// unsettled reports whether a container does not count as up yet, and until when. That applies to a container that was
// restarted in this rollout, and to a successor without a check.
func (s *view) unsettled(svc *carav1.Service, c *engine.Container, successor bool) (until time.Time, unsettled bool) {
	var d time.Duration
	if r := s.h.Memory.Restarts[svc.GetName()]; r.Row > 0 && (successor || s.w.Phase != api.PhaseRunning) {
		d = s.w.Limits.delay(r.Row)
	}
	if successor && s.check(svc, c) == nil {
		d = max(d, s.w.Limits.Settle)
	}
	until = c.StartedAt.Add(d)
	return until, d > 0 && s.now.Before(until)
}

// works reports whether an up-to-date container does its job: it is up, and healthy if it has a check, or it has ended
// successfully if it may end.
func (s *view) works(svc *carav1.Service, c *engine.Container, successor bool) bool {
	if s.done(svc, c) {
		return true
	}
	if _, unsettled := s.unsettled(svc, c, successor); unsettled || c.State != engine.StateRunning {
		return false
	}
	if c.Networks[NetworkName(s.w.Project)].NetworkID == "" {
		return false
	}
	return s.check(svc, c) == nil || s.h.Health[c.ID].State == api.HealthHealthy
}

// exitText describes how a container ended.
func exitText(c *engine.Container) string {
	switch {
	case c.OOMKilled:
		return fmt.Sprintf("was killed for want of memory (exit code %d)", c.ExitCode)
	case c.StartError != "":
		return "could not start: " + c.StartError
	case c.ExitCode > 128 && c.ExitCode < 160:
		return fmt.Sprintf("was ended by signal %d (exit code %d)", c.ExitCode-128, c.ExitCode)
	}
	return fmt.Sprintf("exited with code %d", c.ExitCode)
}
