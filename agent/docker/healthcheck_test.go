package docker

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

func TestCheckOfAnImage(t *testing.T) {
	check := func(command ...string) *carav1.Healthcheck {
		return &carav1.Healthcheck{Exec: &carav1.ExecCheck{Command: command}, Interval: "30s", Timeout: "30s", StartPeriod: "0s", Retries: 3}
	}
	timed := check("/check", "-q")
	timed.Interval, timed.Timeout, timed.StartPeriod, timed.Retries = "5s", "1.5s", "1m0s", 7
	for name, c := range map[string]struct {
		image *container.HealthConfig
		shell []string
		want  *carav1.Healthcheck
	}{
		"none":          {nil, nil, nil},
		"empty":         {&container.HealthConfig{}, nil, nil},
		"turned off":    {&container.HealthConfig{Test: []string{"NONE"}}, nil, nil},
		"unknown":       {&container.HealthConfig{Test: []string{"HTTP", "/"}}, nil, nil},
		"shell":         {&container.HealthConfig{Test: []string{"CMD-SHELL", "curl -f x || exit 1"}}, nil, check("/bin/sh", "-c", "curl -f x || exit 1")},
		"another shell": {&container.HealthConfig{Test: []string{"CMD-SHELL", "x"}}, []string{"/bin/bash", "-ec"}, check("/bin/bash", "-ec", "x")},
		"command": {&container.HealthConfig{
			Test: []string{"CMD", "/check", "-q"}, Interval: 5 * time.Second, Timeout: 1500 * time.Millisecond, StartPeriod: time.Minute, Retries: 7,
		}, nil, timed},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, checkOf(c.image, c.shell), protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
