package compose

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/compose-spec/compose-go/v2/types"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// resources converts requests and limits. Those of deploy have precedence, as in Compose.
func (s *service) resources() {
	limits := &carav1.ResourceList{Cpu: cpu(s.in.CPUS), Memory: memory(s.in.MemLimit), Pids: s.pids("pids_limit", s.in.PidsLimit)}
	requests := &carav1.ResourceList{Memory: memory(s.in.MemReservation)}
	if d := s.in.Deploy; d != nil {
		s.overrideResources(limits, d.Resources.Limits, "limits")
		s.overrideResources(requests, d.Resources.Reservations, "reservations")
	}
	if requests.GetPids() != 0 {
		s.say(Loss, "deploy.resources.reservations.pids", "only limits.pids has an equivalent")
		requests.Pids = 0
	}
	out := &carav1.Resources{Requests: orNil(requests), Limits: orNil(limits)}
	if out.GetRequests() != nil || out.GetLimits() != nil {
		s.out.Resources = out
	}
	s.out.ShmSize = memory(s.in.ShmSize)
	s.ulimits()
}

func (s *service) overrideResources(out *carav1.ResourceList, in *types.Resource, which string) {
	if in == nil {
		return
	}
	if v := cpu(float32(in.NanoCPUs)); v != "" {
		out.Cpu = v
	}
	if v := memory(in.MemoryBytes); v != "" {
		out.Memory = v
	}
	if v := s.pids("deploy.resources."+which+".pids", in.Pids); v != 0 {
		out.Pids = v
	}
}

func orNil(l *carav1.ResourceList) *carav1.ResourceList {
	if l.GetCpu() == "" && l.GetMemory() == "" && l.GetPids() == 0 {
		return nil
	}
	return l
}

// pids returns a limit of processes. Compose's -1 means no limit, which Cara does not have.
func (s *service) pids(key string, n int64) int32 {
	const most = 4194304
	if n < 0 {
		s.say(Note, key, "Cara always limits processes: to 4096, or as the node's agent says")
		return 0
	}
	return int32(min(n, most)) //nolint:gosec // limited
}

// cpu returns a quantity of cores.
func cpu(cores float32) string {
	milli := int64(math.Round(float64(cores) * 1000))
	switch {
	case milli <= 0:
		return ""
	case milli%1000 == 0:
		return strconv.FormatInt(milli/1000, 10)
	}
	return fmt.Sprintf("%dm", milli)
}

// memory returns a quantity of bytes in the largest unit without a rest.
func memory(bytes types.UnitBytes) string {
	if bytes <= 0 {
		return ""
	}
	n, unit := int64(bytes), ""
	for _, larger := range []string{"Ki", "Mi", "Gi"} {
		if n%1024 != 0 {
			break
		}
		n, unit = n/1024, larger
	}
	return strconv.FormatInt(n, 10) + unit
}

func (s *service) ulimits() {
	for _, name := range slices.Sorted(maps.Keys(s.in.Ulimits)) {
		u := s.in.Ulimits[name]
		soft, hard := u.Soft, u.Hard
		if u.Single != 0 {
			soft, hard = u.Single, 0
		}
		s.out.Ulimits = append(s.out.Ulimits, &carav1.Ulimit{Name: name, Soft: clampInt32(soft), Hard: clampInt32(hard)})
	}
}

func clampInt32(n int) int32 { return int32(max(-1, min(n, math.MaxInt32))) } //nolint:gosec // limited
