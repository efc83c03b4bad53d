package docker

import (
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// checkOf converts an image's HEALTHCHECK, or returns nil if it has none. `CMD` is a command, `CMD-SHELL` a line for the
// image's shell.
func checkOf(h *container.HealthConfig, shell []string) *carav1.Healthcheck {
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	command := h.Test[1:]
	if h.Test[0] == "CMD-SHELL" {
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		command = append(append([]string{}, shell...), h.Test[1])
	} else if h.Test[0] != "CMD" {
		return nil
	}
	out := &carav1.Healthcheck{Exec: &carav1.ExecCheck{Command: command}, Retries: int32(h.Retries)}
	for field, d := range map[*string]time.Duration{&out.Interval: h.Interval, &out.Timeout: h.Timeout, &out.StartPeriod: h.StartPeriod} {
		if d > 0 {
			*field = d.String()
		}
	}
	spec := api.Normalize(&carav1.ProjectSpec{Services: []*carav1.Service{{Healthcheck: out}}})
	return spec.GetServices()[0].GetHealthcheck()
}
