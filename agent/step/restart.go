package step

import (
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// How Step handles an operator's restart. Each service has the token of the last request that named it, and its container
// has the token that it was created or restarted for. If they differ, the service must be restarted.
//
// A running container that is otherwise up to date is restarted in place: it is stopped and started again, so it keeps its
// log and its files. Before the stop, the record names the run that has to end. If the agent is killed at any point in
// between, the next agent finds that run, which it ends; or the run stopped, so it starts a new one; or a later run, so the
// restart is complete.
//
// A new container is created instead if the service is updated start-first, because it must keep serving; if a new one would
// differ, because its image is pulled again or a Secret has a new value; and if the container is not running.

// InPlace is a restart in place of one container.
type InPlace struct {
	Token string `json:"token"`
	// Run is the start time, by the engine's clock, of the run that has to end.
	Run time.Time `json:"run"`
}

// restartWanted reports whether a service must be restarted whose container was created or restarted for this token.
func (w *Want) restartWanted(service, token string) bool {
	return w.Restarts[service] != "" && w.Restarts[service] != token
}

// restartedFor returns the token that a container was created or restarted for.
func (s *view) restartedFor(c *engine.Container) string {
	if r, ok := s.h.Record.InPlace[c.ID]; ok && !r.Run.Equal(c.EngineStart()) {
		return r.Token
	}
	return c.Labels[labelRestart]
}

// inPlace reports whether a container must be restarted in place.
func (s *view) inPlace(svc *carav1.Service, c *engine.Container) bool {
	switch {
	case !s.w.restartWanted(svc.GetName(), s.restartedFor(c)) || c.StartedAt.IsZero():
		return false
	case startFirst(svc) || svc.GetPullPolicy() == api.PullAlways:
		return false
	case !s.madeAs(svc, c) || len(s.w.changedSecrets(svc, c)) > 0 || s.wrongLimits(svc, c) && !s.changeable(svc, c):
		return false
	}
	return up(*c) || s.restarting(svc, c) && c.State == engine.StateExited
}

// restarting reports whether the requested restart of this container has begun.
func (s *view) restarting(svc *carav1.Service, c *engine.Container) bool {
	r, ok := s.h.Record.InPlace[c.ID]
	return ok && r.Token == s.w.Restarts[svc.GetName()]
}

// restartAsked is the reason for a restart.
const restartAsked = "an operator asked for a restart"

// restart restarts a container in place, once its dependencies allow it.
func (s *step) restart(svc *carav1.Service, c *engine.Container, network *engine.Network) {
	stop, start := about(KindStopContainer, c, restartAsked), about(KindRestartContainer, c, restartAsked)
	stop.Restart, start.Restart = s.w.Restarts[svc.GetName()], s.w.Restarts[svc.GetName()]
	if up(*c) {
		if why := s.blocked(svc); why != "" {
			s.wait(svc.GetName(), time.Time{}, "%s", why)
			return
		}
		s.attempt(stop, "")
		return
	}
	at, attached := c.Networks[NetworkName(s.w.Project)]
	switch {
	case network == nil: // it comes first
	case !attached || at.NetworkID != "" && at.NetworkID != network.ID:
		s.delete(*c, "its network is gone")
	default:
		s.attempt(start, api.ReasonStartFailed)
	}
}

// recordInPlace keeps the restarts in place of existing containers, and adds those that begin now.
func (r Record) recordInPlace(h *Have, actions []Action) map[string]InPlace {
	out := map[string]InPlace{}
	for id, restart := range r.InPlace {
		if h.Find(id).ID != "" {
			out[id] = restart
		}
	}
	for _, a := range actions {
		if c := h.Find(a.ID); a.Kind == KindStopContainer && a.Restart != "" && c.ID != "" {
			out[a.ID] = InPlace{Token: a.Restart, Run: c.EngineStart()}
		}
	}
	return out
}

// StartsAgain reports whether a stopped container will be started or replaced. A nil Want belongs to a project that this
// node no longer has.
func (w *Want) StartsAgain(c engine.Container) bool {
	if w == nil || w.Remove || w.Phase == api.PhaseFailed {
		return false
	}
	svc := w.Service(c.Labels[api.LabelService])
	switch {
	case svc == nil: // removed by an update
		return false
	case c.StartedAt.IsZero() || c.Labels[labelRunHash] != w.RunHashes[svc.GetName()]:
		return true
	case svc.GetRestartPolicy() == api.RestartNever:
		return false
	case svc.GetRestartPolicy() == api.RestartOnFailure:
		return c.ExitCode != 0
	}
	return true
}
