package step

import (
	"google.golang.org/protobuf/proto"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// runHash is the hash of what a service's container must be made anew for: all of it but its resources.
func runHash(spec *carav1.ProjectSpec, service string) string {
	bare := proto.CloneOf(spec)
	for _, s := range bare.GetServices() {
		s.Resources = nil
	}
	return api.ServiceHash(bare, service)
}

// wrongLimits says whether a container that is otherwise as wanted has other limits than the manifest says. One that
// never ran is made anew instead, so nobody looks at its limits. A kernel without limits on memory leaves them out: one
// that was made as the manifest says, and cannot be changed to it either, is as well as can be.
func (s *view) wrongLimits(svc *carav1.Service, c *engine.Container) bool {
	limits, err := engine.LimitsOf(svc)
	if err != nil || c.Limits == limits || c.State == engine.StateCreated { // what cannot be read the server has refused
		return false
	}
	made := c.Labels[api.LabelSpecHash] == s.w.Hashes[svc.GetName()]
	return !made || s.h.Memory.Tries[updateOf(c).Key()].Count < updateTries
}

func updateOf(c *engine.Container) Action { return about(KindUpdateContainer, c, "its limits changed") }

// updateTries is how often the engine is asked to change limits in place before the container is made anew.
const updateTries = 3

// changeable says whether the engine can be asked to change a container's limits without a restart.
func (s *view) changeable(svc *carav1.Service, c *engine.Container) bool {
	limits, err := engine.LimitsOf(svc)
	return err == nil && c.Limits.InPlace(limits) && s.h.Memory.Tries[updateOf(c).Key()].Count < updateTries
}

// update gives a container its limits without a restart.
func (s *plan) update(c *engine.Container) { s.attempt(updateOf(c), "") }
