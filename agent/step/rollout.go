package step

import (
	"cmp"
	"slices"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func (s *step) rollOut() {
	volumes := s.volumes()
	network := s.network()
	for _, c := range s.strays() {
		s.delete(c, "no service of the project needs it")
	}
	for _, svc := range s.w.Spec.GetServices() {
		s.service(svc, network, volumes)
	}
	s.restore()
	s.volumesFirst()
	if len(s.actions) > 0 || s.updating() || s.h.Memory.Update != nil {
		return
	}
	defer s.prove()
	for _, v := range s.h.Volumes {
		if !slices.ContainsFunc(s.w.Spec.GetVolumes(), func(d *carav1.ProjectVolume) bool { return s.w.source(d.GetName()).Volume == v.Name }) {
			s.attempt(Action{Kind: KindRemoveVolume, Name: v.Name, Reason: "the manifest does not declare it any more"}, "")
		}
	}
	for _, n := range s.h.Networks {
		if n.Name != NetworkName(s.w.Project) {
			s.attempt(Action{Kind: KindRemoveNetwork, ID: n.ID, Name: n.Name, Reason: "it is not the project's network"}, "")
		}
	}
}

func (s *step) service(svc *carav1.Service, network *engine.Network, volumes map[string]bool) {
	if old := s.previous(svc); old != nil {
		s.beside(svc, old, network, volumes)
		return
	}
	c := s.container(svc.GetName())
	if f := s.h.Memory.Update; f != nil && s.abandon(svc, c, f) {
		return
	}
	if (c == nil || c.StartedAt.IsZero()) && s.h.Memory.Update == nil && s.uncheckable(svc) {
		return
	}
	switch {
	case s.completion(svc) != nil: // it has completed, and someone removed the container
		if c != nil {
			s.delete(*c, "the service has completed as the manifest has it now")
		}
	case c == nil:
		s.create(svc, volumes, reasonNoContainer)
	case c.State == engine.StateRemoving || c.State == engine.StateDead:
		s.delete(*c, "the engine could not remove it")
	case s.inPlace(svc, c):
		s.restart(svc, c, network)
	case s.outdated(svc, c) != "":
		s.replace(svc, c, s.outdated(svc, c))
	case s.wrongLimits(svc, c):
		s.update(c)
	case up(*c):
		s.running(svc, c, network)
	default:
		s.stopped(svc, c, network)
	}
}

// volumesFirst postpones slow actions until the volumes exist. Volumes take a millisecond, and containers, which are created
// concurrently with the network, need them.
func (s *plan) volumesFirst() {
	if slices.ContainsFunc(s.actions, func(a Action) bool { return a.Kind == KindCreateVolume }) {
		s.actions = slices.DeleteFunc(s.actions, func(a Action) bool { return a.Kind == KindCreateNetwork || a.Kind == KindCreateContainer })
	}
}

// create creates a service's container as soon as everything it needs exists. It is started later. The engine creates it
// without its network, which it joins at the start.
func (s *step) create(svc *carav1.Service, volumes map[string]bool, reason string) {
	if !s.ingredients(svc) {
		return
	}
	for _, m := range svc.GetVolumeMounts() {
		if !volumes[m.GetName()] {
			return
		}
	}
	if keep := s.h.network(s.w.Project); keep != nil && !s.roomy(keep) {
		s.fail(svc.GetName(), api.ReasonNetworkTooSmall, "the project's network %s, made for fewer services, has too few addresses for %d; "+
			"delete the project and apply it again, or spread its services over several projects", keep.Subnet, len(s.w.Spec.GetServices()))
		return
	}
	if name := s.freeName(svc.GetName()); name != "" {
		s.attempt(Action{Kind: KindCreateContainer, Service: svc.GetName(), Name: name, Reason: reason}, api.ReasonCreateFailed)
	}
}

// freeName returns the free one of a service's two names. It is empty if the service already has two containers: the rest of
// an older generation must be removed first.
func (s *view) freeName(service string) string {
	made := 0
	taken := map[string]bool{}
	for _, c := range s.h.Containers {
		taken[c.Name] = true
		if c.Labels[api.LabelService] == service {
			made++
		}
	}
	for _, name := range []string{containerName(s.w.Project, service), successorName(s.w.Project, service)} {
		if made < 2 && !taken[name] {
			return name
		}
	}
	return ""
}

// ingredients reports whether the service's image, secrets, files and host paths are available, and requests a missing image
// and missing files.
func (s *plan) ingredients(svc *carav1.Service) bool {
	if s.pathsMissing(svc) {
		return false
	}
	if why := s.w.missingValue(svc); why != "" {
		s.wait(svc.GetName(), time.Time{}, "%s", why)
		return false
	}
	if s.unfetched(svc) {
		s.attempt(Action{Kind: KindFetchFiles, Service: svc.GetName(), Reason: "the service needs files of its source"}, "")
		return false
	}
	return s.image(svc)
}

// replace removes an outdated container. A running one is removed only once its successor could start, so that a slow or
// impossible pull does not stop what works.
func (s *step) replace(svc *carav1.Service, c *engine.Container, reason string) {
	if !s.ingredients(svc) {
		return
	}
	if why := s.blocked(svc); up(*c) && why != "" {
		s.wait(svc.GetName(), time.Time{}, "%s", why)
		return
	}
	s.delete(*c, reason)
}

func (s *step) running(svc *carav1.Service, c *engine.Container, network *engine.Network) {
	if c.State == engine.StatePaused {
		s.unpause(c)
		return
	}
	if network != nil && !on(*c, network) {
		s.connect(c)
		return
	}
	if s.check(svc, c) == nil {
		s.settle(svc, c)
		return
	}
	health, probed := s.h.Health[c.ID]
	switch {
	case (s.w.Phase == api.PhaseScheduled || s.previous(svc) != nil) && probed && health.State == api.HealthUnhealthy && !health.Ever:
		s.fail(svc.GetName(), api.ReasonHealthCheckFailed, "the health check of service %s never passed: %s", svc.GetName(), health.Message)
	case !probed || health.State != api.HealthHealthy:
		s.wait(svc.GetName(), time.Time{}, "service %s is not healthy: %s", svc.GetName(), cmp.Or(health.Message, "no check has ended yet"))
	default:
		s.settle(svc, c)
	}
}

func (s *plan) unpause(c *engine.Container) {
	s.attempt(about(KindUnpauseContainer, c, "somebody paused it"), "")
}

func (s *plan) connect(c *engine.Container) {
	s.attempt(about(KindConnectContainer, c, "it is not on the project's network"), "")
}

// settle waits until a restarted container has been up as long as its restart delay: one that keeps exiting does not count
// as up after each start. A successor without a check must also stay up for a while.
func (s *step) settle(svc *carav1.Service, c *engine.Container) {
	if until, unsettled := s.unsettled(svc, c, s.previous(svc) != nil); unsettled {
		s.wait(svc.GetName(), until, "service %s was started %s ago", svc.GetName(), s.now.Sub(c.StartedAt).Round(time.Second))
	}
}

// stopped decides about a container that exists and is not running.
func (s *step) stopped(svc *carav1.Service, c *engine.Container, network *engine.Network) {
	at, attached := c.Networks[NetworkName(s.w.Project)]
	switch {
	case network == nil:
		return // it comes first
	case s.done(svc, c):
		return
	case !attached || at.NetworkID != "" && at.NetworkID != network.ID:
		s.delete(*c, "its network is gone")
	case s.pathsMissing(svc):
	case c.StartedAt.IsZero():
		if why := s.blocked(svc); why != "" {
			s.wait(svc.GetName(), time.Time{}, "%s", why)
			return
		}
		if len(svc.GetFiles()) > 0 && !s.ingredients(svc) {
			return
		}
		s.launch(svc, c)
	default:
		s.exited(svc, c)
	}
}

// launch starts a container for the first time. The containers that it replaces are stopped first.
func (s *step) launch(svc *carav1.Service, c *engine.Container) {
	way := s.inTheWay(svc)
	for _, old := range way {
		s.attempt(about(KindStopContainer, &old, "service "+svc.GetName()+" takes its place").previous(), "")
	}
	if len(way) > 0 {
		return
	}
	s.attempt(about(KindStartContainer, c, reasonNext), api.ReasonStartFailed)
}

func (s *step) exited(svc *carav1.Service, c *engine.Container) {
	if svc.GetRestartPolicy() == api.RestartNever {
		s.fail(svc.GetName(), api.ReasonExited, "service %s %s and its restartPolicy is Never", svc.GetName(), exitText(c))
		return
	}
	r := s.h.Memory.Restarts[svc.GetName()]
	at, exhausted := s.w.Limits.due(r, c.StartedAt, c.FinishedAt, s.now)
	switch {
	case exhausted:
		s.fail(svc.GetName(), api.ReasonCrashLoop, "service %s %s, again after %d restarts within %s",
			svc.GetName(), exitText(c), s.w.Limits.Limit, s.w.Limits.Window)
	case s.now.Before(at):
		s.wait(svc.GetName(), at, "service %s %s and is started again at %s", svc.GetName(), exitText(c), at.UTC().Format("15:04:05"))
	default:
		s.attempt(about(KindRestartContainer, c, exitText(c)), api.ReasonStartFailed)
	}
}
