package step

import (
	"fmt"
	"slices"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// How Step handles an update. During the update a service has two containers: its successor, which is up to date, and the
// previous one, which is outdated. Invariants:
//
//   - There is at most one successor, and it is always the younger one. Of several outdated containers, the oldest serves,
//     and the others are incomplete successors of an older generation.
//   - With the order start-first, the previous container is kept running and in the endpoints until the successor is ready.
//     In that same decision the successor enters the endpoints and the previous one is deleted.
//   - With the order stop-first, the successor is created while the previous container exists. The previous one yields: it
//     is stopped just before the successor starts, and deleted once the successor is ready. They never run together. A
//     service is replaced without this if no other version served before, or if it never starts again (restartPolicy Never).
//   - A successor that failed permanently is never ready. Then nothing more is replaced until the next rollout: what runs is
//     kept running, what yielded is started again, and the successor is kept stopped, for its log. The project fails only if
//     nothing that served before is left.
//
// The record stores the failure, the version that served, and what yielded (see Record). A restarted agent comes to the same
// decisions.

// previous returns the container that serves, or would serve again, while the service's successor is not ready. It returns
// nil if there is none, or if the service is replaced without one.
func (s *progress) previous(svc *carav1.Service) *engine.Container {
	failed, netted := s.h.Memory.Update != nil, s.netted(svc)
	if !netted && !failed {
		return nil
	}
	next, old := s.best(svc, true), s.best(svc, false)
	if old != nil && next == nil && !failed && s.inPlace(svc, old) {
		return nil
	}
	held := failed && next == nil // nothing more is replaced, in either order
	if old == nil || !held && !netted || next != nil && s.ready(svc, next) {
		return nil
	}
	if up(*old) || s.h.Record.Yielded[old.ID] || (next != nil || held) && comesBack(svc, old) {
		return old
	}
	return nil
}

func startFirst(svc *carav1.Service) bool { return svc.GetUpdate().GetOrder() == api.UpdateStartFirst }

// netted reports whether the previous container of a service is kept until its successor is ready.
func (s *progress) netted(svc *carav1.Service) bool {
	return startFirst(svc) || s.replacing() && svc.GetRestartPolicy() != api.RestartNever
}

// serving returns the container of a service that receives its requests.
func (s *progress) serving(svc *carav1.Service) *engine.Container {
	old, next := s.previous(svc), s.best(svc, true)
	switch {
	case old == nil:
		return s.container(svc.GetName())
	case !startFirst(svc) && s.h.Memory.Update == nil && next != nil && !up(*old):
		return next
	}
	return old
}

// ready reports whether a successor can take over.
func (s *progress) ready(svc *carav1.Service, next *engine.Container) bool {
	if f := s.h.Memory.Update; f != nil && f.Service == svc.GetName() {
		return false
	}
	return s.works(svc, next, true)
}

// comesBack reports whether an outdated container is started again after it has ended.
func comesBack(svc *carav1.Service, c *engine.Container) bool {
	if c.State != engine.StateExited || c.StartedAt.IsZero() {
		return false
	}
	return svc.GetRestartPolicy() != api.RestartNever && (svc.GetRestartPolicy() != api.RestartOnFailure || c.ExitCode != 0)
}

// updating reports whether anything of the previous version still serves.
func (s *progress) updating() bool {
	return slices.ContainsFunc(s.w.Spec.GetServices(), func(svc *carav1.Service) bool { return s.previous(svc) != nil })
}

// besideEachOther reports whether an update keeps every service that it replaces up.
func (s *progress) besideEachOther() bool {
	besides := false
	for _, svc := range s.w.Spec.GetServices() {
		old := s.previous(svc)
		if old != nil && !up(*old) {
			return false
		}
		besides = besides || old != nil
	}
	return besides
}

// beside keeps the previous container of a service running and prepares its successor to take over.
func (s *step) beside(svc *carav1.Service, old *engine.Container, network *engine.Network, volumes map[string]bool) {
	next, failed := s.best(svc, true), s.h.Memory.Update
	if failed == nil && (next == nil || next.StartedAt.IsZero()) && s.uncheckable(svc) {
		return
	}
	switch {
	case failed != nil && !startFirst(svc) && next != nil && up(*next):
		s.giveUp(svc, next, failed) // only then does the previous one come back
		return
	case failed == nil && s.yields(svc, old, next):
	default:
		s.keep(svc, old, network)
	}
	switch {
	case failed != nil && next != nil:
		s.giveUp(svc, next, failed)
	case failed != nil:
	case next == nil && !startFirst(svc) && old.Name == containerName(s.w.Project, svc.GetName()):
		s.makeWay(svc, old)
	case next == nil:
		s.create(svc, volumes, s.outdated(svc, old)+", and its container serves until the new one is ready")
	case next.State == engine.StateRemoving || next.State == engine.StateDead:
		s.delete(*next, "the engine could not remove it")
	case s.wrongLimits(svc, next):
		s.update(next)
	case up(*next):
		s.running(svc, next, network)
	default:
		s.stopped(svc, next, network)
	}
}

// yields reports whether the previous container of a service may be down, because its successor starts or runs.
func (s *progress) yields(svc *carav1.Service, old, next *engine.Container) bool {
	switch {
	case startFirst(svc) || up(*old):
		return false
	case s.h.Record.Yielded[old.ID]:
		return true
	}
	return next != nil && (!next.StartedAt.IsZero() || s.blocked(svc) == "")
}

// makeWay renames the previous container to the second name, so that its successor gets the service's own name.
func (s *step) makeWay(svc *carav1.Service, old *engine.Container) {
	alone := 0
	for _, c := range s.h.Containers {
		if c.Labels[api.LabelService] == svc.GetName() {
			alone++
		}
	}
	if alone > 1 || !s.ingredients(svc) { // the rest of an older generation must be removed first
		return
	}
	rename := about(KindRenameContainer, old, "its successor gets the service's name")
	rename.Name = successorName(s.w.Project, svc.GetName())
	s.attempt(rename, api.ReasonCreateFailed)
}

// giveUp keeps only the failed one of the successors, stopped, for its log. If the service may end, a stopped container
// would look like a successful end, so it is deleted.
func (s *step) giveUp(svc *carav1.Service, next *engine.Container, failed *Failure) {
	switch {
	case failed.Service != svc.GetName():
		s.delete(*next, "the update of service "+failed.Service+" failed")
	case !up(*next):
	case svc.GetRestartPolicy() == api.RestartNever || svc.GetRestartPolicy() == api.RestartOnFailure:
		s.delete(*next, "its update failed")
	default:
		s.attempt(about(KindStopContainer, next, "its update failed"), "")
	}
}

// keep keeps an outdated container running.
func (s *step) keep(svc *carav1.Service, old *engine.Container, network *engine.Network) {
	at, attached := old.Networks[NetworkName(s.w.Project)]
	next := s.best(svc, true)
	switch {
	case old.State == engine.StatePaused:
		s.unpause(old)
	case network == nil: // it comes first
	case up(*old) && !on(*old, network):
		s.connect(old)
	case up(*old):
	case !attached || at.NetworkID != network.ID:
		s.lost(svc, old, "its network is gone")
	case next != nil && next.State == engine.StateRunning && s.check(svc, next) != nil && s.h.Health[next.ID] == (Health{}):
		// An agent that has just started does not know yet whether the successor has taken over.
	default:
		s.again(svc, old)
	}
}

// again restarts an outdated container, within the restart limits.
func (s *step) again(svc *carav1.Service, old *engine.Container) {
	a := about(KindRestartContainer, old, exitText(old)).previous()
	t := s.h.Memory.Tries[a.Key()]
	at, exhausted := s.w.Limits.due(s.h.Memory.Restarts[old.ID], old.StartedAt, old.FinishedAt, s.now)
	switch {
	case exhausted:
		s.lost(svc, old, fmt.Sprintf("it %s, again after %d restarts within %s", exitText(old), s.w.Limits.Limit, s.w.Limits.Window))
	case t.Final || t.Count > s.w.Limits.Limit:
		s.lost(svc, old, t.Err)
	case s.now.Before(at):
		s.wait(svc.GetName(), at, "the previous container of service %s %s and is started again at %s",
			svc.GetName(), exitText(old), at.UTC().Format("15:04:05"))
	default:
		s.attempt(a, "")
	}
}

// lost fails the project if the previous container cannot be kept running and the update has failed, so that there is no
// successor to wait for.
func (s *step) lost(svc *carav1.Service, old *engine.Container, why string) {
	failed := s.h.Memory.Update
	if failed == nil {
		return
	}
	f := &Failure{Service: svc.GetName(), Container: old.ID, Reason: api.ReasonCrashLoop, Message: fmt.Sprintf(
		"the previous container of service %s cannot be kept up: %s. The update of service %s had failed: %s",
		svc.GetName(), why, failed.Service, failed.Message)}
	s.add(Action{Kind: KindFail, Service: svc.GetName(), Failure: f, Reason: f.Message})
}
