package engine

import (
	"cmp"
	"fmt"

	"github.com/caravanserai/cara/api/syntax"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// Limits are the resource limits of a container; 0 means no limit.
type Limits struct {
	NanoCPUs int64
	Memory   int64 // bytes
	PIDs     int64 // processes and threads
}

// LimitsOf parses a service's limits.
func LimitsOf(s *carav1.Service) (Limits, error) {
	limits := s.GetResources().GetLimits()
	cpu, err := syntax.MilliCPU(limits.GetCpu())
	if err != nil {
		return Limits{}, fmt.Errorf("resources.limits.cpu: %w", err)
	}
	memory, err := syntax.Bytes(limits.GetMemory())
	if err != nil {
		return Limits{}, fmt.Errorf("resources.limits.memory: %w", err)
	}
	return Limits{NanoCPUs: cpu * 1e6, Memory: memory, PIDs: int64(limits.GetPids())}, nil
}

// InPlace reports whether a running container with limits l can be changed to the limits to: an engine can change or add a
// limit, but not remove one.
func (l Limits) InPlace(to Limits) bool {
	return l.with(to) == to
}

// with returns the limits after an update of l to the given limits: a limit that is not given stays.
func (l Limits) with(to Limits) Limits {
	return Limits{NanoCPUs: cmp.Or(to.NanoCPUs, l.NanoCPUs), Memory: cmp.Or(to.Memory, l.Memory), PIDs: cmp.Or(to.PIDs, l.PIDs)}
}
