package step

import (
	"slices"
	"time"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
)

// Routable returns the services that may receive requests, each with the address of its serving container: up, healthy, and
// not about to be stopped. The health of an outdated container is known if its own check was seen.
func Routable(want *Want, have *Have, actions []Action, now time.Time) map[string]string {
	out := map[string]string{}
	if want.Remove || want.Failure != nil || have.Memory.Failure != nil {
		return out
	}
	s := &progress{view{w: want, h: have, now: now}}
	for _, svc := range want.Spec.GetServices() {
		c := s.serving(svc)
		if c == nil || c.State != engine.StateRunning {
			continue
		}
		leaving := slices.ContainsFunc(actions, func(x Action) bool {
			return x.ID == c.ID && (x.Kind == KindDeleteContainer || x.Kind == KindStopContainer)
		})
		health, probed := have.Health[c.ID]
		checked := probed || s.check(svc, c) != nil && s.outdated(svc, c) == ""
		ip := c.Networks[NetworkName(want.Project)].IP
		if ip != "" && !leaving && (!checked || health.State == api.HealthHealthy) {
			out[svc.GetName()] = ip
		}
	}
	return out
}
