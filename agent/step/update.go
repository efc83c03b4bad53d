package step

import (
	"fmt"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// An update, as Step sees it. A service then has two containers for a while: its successor, which is as wanted, and the
// previous one, which is not. What holds:
//
//   - There is at most one successor, and it is always the younger one: of several containers that are not as wanted,
//     the oldest serves and the others are half-made successors of an older generation.
//   - With the order start-first the previous one is kept up, and in the endpoints, until the successor is ready. From
//     that very decision on the successor is in the endpoints and the previous one is deleted.
//   - With the order stop-first the successor is made beside the previous one, which yields: it is stopped right before
//     the successor starts, and deleted once the successor is ready. Never do both run. A service without another
//     version that served before, or that never starts again (restartPolicy Never), is replaced without this.
//   - A successor that failed for good is never ready. Until the next rollout nothing more is replaced, then: what runs
//     is kept up, what yielded is started again, and the successor is kept as it is, stopped, for its log. The project
//     fails only where nothing that served before is left.
//
// Remembered are the failure, the version that served, and what yielded (see Record). An agent that starts anew makes the
// same of what it finds.

// previous is the container that serves, or would again, while the service's successor is not ready; nil where there is
// none, or where the service is replaced without one.
func (s *progress) previous(svc *carav1.Service) *engine.Container {
	failed, netted := s.h.Memory.Update != nil, s.netted(svc)
	if !netted && !failed {
		return nil
	}
	next, old := s.best(svc, true), s.best(svc, false)
	if old != nil && next == nil && !failed && s.inPlace(svc, old) {
		return nil
	}
	held := failed && next == nil // nothing more is replaced, whatever its order
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

// serving is the container of a service that gets its requests.
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

// ready says whether a successor can take over.
func (s *progress) ready(svc *carav1.Service, next *engine.Container) bool {
	if f := s.h.Memory.Update; f != nil && f.Service == svc.GetName() {
		return false
	}
	return s.works(svc, next, true)
}

// comesBack says whether a container that is not as wanted any more is started again once it has ended.
func comesBack(svc *carav1.Service, c *engine.Container) bool {
	if c.State != engine.StateExited || c.StartedAt.IsZero() {
		return false
	}
	return svc.GetRestartPolicy() != api.RestartNever && (svc.GetRestartPolicy() != api.RestartOnFailure || c.ExitCode != 0)
}

// updating says whether anything of the previous version still serves.
func (s *progress) updating() bool {
	for _, svc := range s.w.Spec.GetServices() {
		if s.previous(svc) != nil {
			return true
		}
	}
	return false
}

// besideEachOther reports whether an update leaves every service that it replaces up.
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

// beside keeps the previous container of a service up and brings its successor to where it can take over.
func (s *step) beside(svc *carav1.Service, old *engine.Container, network *engine.Network, volumes map[string]bool) {
	next, failed := s.best(svc, true), s.h.Memory.Update
	if failed == nil && (next == nil || next.StartedAt.IsZero()) && s.uncheckable(svc) {
		return
	}
	switch {
	case failed != nil && !startFirst(svc) && next != nil && up(*next):
		s.giveUp(svc, next, failed) // and only then the previous one comes back
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

// yields reports whether the previous container of a service may be down, as its successor starts or runs.
func (s *progress) yields(svc *carav1.Service, old, next *engine.Container) bool {
	switch {
	case startFirst(svc) || up(*old):
		return false
	case s.h.Record.Yielded[old.ID]:
		return true
	}
	return next != nil && (!next.StartedAt.IsZero() || s.blocked(svc) == "")
}

// makeWay gives the previous container the second name, so that its successor has the service's own.
func (s *step) makeWay(svc *carav1.Service, old *engine.Container) {
	alone := 0
	for _, c := range s.h.Containers {
		if c.Labels[api.LabelService] == svc.GetName() {
			alone++
		}
	}
	if alone > 1 || !s.ingredients(svc) { // what is left of an older generation goes first
		return
	}
	rename := about(KindRenameContainer, old, "its successor gets the service's name")
	rename.Name = successorName(s.w.Project, svc.GetName())
	s.attempt(rename, api.ReasonCreateFailed)
}

// giveUp leaves of the successors, once one of them has failed, that one alone, stopped, for its log. A service that may
// end well would seem to have done so when it is stopped, so it is not kept.
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

// keep keeps a container up that is not as wanted any more.
func (s *step) keep(svc *carav1.Service, old *engine.Container, network *engine.Network) {
	at, attached := old.Networks[NetworkName(s.w.Project)]
	next := s.best(svc, true)
	switch {
	case old.State == engine.StatePaused:
		s.unpause(old)
	case network == nil: // it comes first
	case up(*old) && !attached:
		s.connect(old)
	case up(*old):
	case !attached || at.NetworkID != network.ID:
		s.lost(svc, old, "its network is gone")
	case next != nil && next.State == engine.StateRunning && s.check(svc, next) != nil && s.h.Health[next.ID] == (Health{}):
		// An agent that has just begun does not know yet whether the successor has taken over.
	default:
		s.again(svc, old)
	}
}

// again starts a container that is not as wanted any more once more, under the limits of restarts.
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

// lost fails the project where the previous container cannot be kept up and there is no successor any more to wait for.
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
