package step

import (
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// runHash hashes the parts of a service whose change requires a new container: everything except its resources.
func runHash(spec *carav1.ProjectSpec, service string) string {
	bare := proto.CloneOf(spec)
	for _, s := range bare.GetServices() {
		s.Resources = nil
	}
	return api.ServiceHash(bare, service)
}

// wrongLimits reports whether an otherwise up-to-date container has other limits than the manifest. A container that never
// ran is recreated instead, so its limits do not matter. A kernel without memory limits ignores them. So a container that
// was created from the manifest, and whose limits could not be changed either, counts as correct.
func (s *view) wrongLimits(svc *carav1.Service, c *engine.Container) bool {
	limits, err := engine.LimitsOf(svc)
	if err != nil || c.Limits == limits || c.State == engine.StateCreated { // the server rejects limits that do not parse
		return false
	}
	made := c.Labels[api.LabelSpecHash] == s.w.Hashes[svc.GetName()]
	return !made || s.h.Memory.Tries[updateOf(c).Key()].Count < updateTries
}

func updateOf(c *engine.Container) Action { return about(KindUpdateContainer, c, "its limits changed") }

// updateTries is how often the limits are changed in place before the container is recreated.
const updateTries = 3

// changeable reports whether a container's limits can be changed without a restart.
func (s *view) changeable(svc *carav1.Service, c *engine.Container) bool {
	limits, err := engine.LimitsOf(svc)
	return err == nil && c.Limits.InPlace(limits) && s.h.Memory.Tries[updateOf(c).Key()].Count < updateTries
}

// update changes a container's limits without a restart.
func (s *plan) update(c *engine.Container) { s.attempt(updateOf(c), "") }
