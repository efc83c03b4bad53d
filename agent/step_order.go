package agent

import (
	"fmt"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// blocked says what a service waits for before it may start; empty where it may. Where dependsOn is used it alone
// counts; where not, each service waits until those before it in the list have started.
func (s *step) blocked(svc *carav1.Service) string {
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

func (s *step) unmet(d *carav1.Dependency) string {
	svc := s.w.service(d.GetService())
	if svc == nil {
		return d.GetService() + ", which is not in the manifest"
	}
	c := s.container(svc.GetName())
	switch {
	case !s.launched(svc):
		return svc.GetName() + " to start"
	case d.GetCondition() == api.DependsCompleted && !s.done(svc, c):
		return svc.GetName() + " to complete"
	case d.GetCondition() == api.DependsHealthy && svc.GetHealthcheck() != nil && s.h.Health[c.ID].State != HealthHealthy:
		return svc.GetName() + " to be healthy"
	}
	return ""
}

// launched says that the service's container is as wanted and has run: what became of it since is another matter.
func (s *step) launched(svc *carav1.Service) bool {
	c := s.container(svc.GetName())
	return c != nil && s.outdated(svc, c) == "" && !c.StartedAt.IsZero()
}

// done says that a service which should end has ended well.
func (s *step) done(svc *carav1.Service, c *Container) bool {
	return c.State == StateExited && c.ExitCode == 0 && !c.StartedAt.IsZero() &&
		(svc.GetRestartPolicy() == api.RestartNever || svc.GetRestartPolicy() == api.RestartOnFailure)
}

// unsettled says until when a container that was restarted in this rollout does not count as up.
func (s *step) unsettled(svc *carav1.Service, c *Container) (until time.Time, unsettled bool) {
	r := s.h.Memory.Restarts[svc.GetName()]
	if r.Row == 0 || s.w.Phase == api.PhaseRunning {
		return time.Time{}, false
	}
	until = c.StartedAt.Add(s.w.Limits.delay(r.Row))
	return until, s.now.Before(until)
}

// exitText says how a container ended.
func exitText(c *Container) string {
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
