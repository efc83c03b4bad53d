package agent

import (
	"cmp"
	"fmt"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// ContainerLimits are what a container may use at most; 0 for no limit.
type ContainerLimits struct {
	NanoCPUs int64
	Memory   int64 // bytes
	PIDs     int64 // processes and threads
}

// LimitsOf reads a service's limits.
func LimitsOf(s *carav1.Service) (ContainerLimits, error) {
	limits := s.GetResources().GetLimits()
	cpu, err := api.MilliCPU(limits.GetCpu())
	if err != nil {
		return ContainerLimits{}, fmt.Errorf("resources.limits.cpu: %w", err)
	}
	memory, err := api.Bytes(limits.GetMemory())
	if err != nil {
		return ContainerLimits{}, fmt.Errorf("resources.limits.memory: %w", err)
	}
	return ContainerLimits{NanoCPUs: cpu * 1e6, Memory: memory, PIDs: int64(limits.GetPids())}, nil
}

// inPlace says whether a container with limits l can be given those of to while it runs: an engine changes a limit, and
// sets one where there was none, but has no way to take one off.
func (l ContainerLimits) inPlace(to ContainerLimits) bool {
	return l.with(to) == to
}

// with is what l becomes where the engine is told to: a limit that to does not name stays.
func (l ContainerLimits) with(to ContainerLimits) ContainerLimits {
	return ContainerLimits{NanoCPUs: cmp.Or(to.NanoCPUs, l.NanoCPUs), Memory: cmp.Or(to.Memory, l.Memory), PIDs: cmp.Or(to.PIDs, l.PIDs)}
}
