package engine

import (
	"cmp"
	"fmt"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Limits are what a container may use at most; 0 for no limit.
type Limits struct {
	NanoCPUs int64
	Memory   int64 // bytes
	PIDs     int64 // processes and threads
}

// LimitsOf reads a service's limits.
func LimitsOf(s *carav1.Service) (Limits, error) {
	limits := s.GetResources().GetLimits()
	cpu, err := api.MilliCPU(limits.GetCpu())
	if err != nil {
		return Limits{}, fmt.Errorf("resources.limits.cpu: %w", err)
	}
	memory, err := api.Bytes(limits.GetMemory())
	if err != nil {
		return Limits{}, fmt.Errorf("resources.limits.memory: %w", err)
	}
	return Limits{NanoCPUs: cpu * 1e6, Memory: memory, PIDs: int64(limits.GetPids())}, nil
}

// InPlace says whether a container with limits l can be given those of to while it runs: an engine changes a limit, and
// sets one where there was none, but has no way to take one off.
func (l Limits) InPlace(to Limits) bool {
	return l.with(to) == to
}

// with is what l becomes where the engine is told to: a limit that to does not name stays.
func (l Limits) with(to Limits) Limits {
	return Limits{NanoCPUs: cmp.Or(to.NanoCPUs, l.NanoCPUs), Memory: cmp.Or(to.Memory, l.Memory), PIDs: cmp.Or(to.PIDs, l.PIDs)}
}
