package docker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/caravanserai/cara/agent/engine"
)

func TestOutlives(t *testing.T) {
	const limit = 2 * time.Second
	notYet, runs := container.ExecInspect{}, container.ExecInspect{Running: true, Pid: 7}
	for name, tt := range map[string]struct {
		states    map[time.Duration]container.ExecInspect // from these times on
		errs      map[time.Duration]error
		cancelled bool // the caller does not want to wait
		pid       int
		over      bool
		took      time.Duration // at most; at least half of it
	}{
		"ended before":              {map[time.Duration]container.ExecInspect{0: {Pid: 7}}, nil, false, 0, true, 0},
		"could not start":           {map[time.Duration]container.ExecInspect{0: {ExitCode: 126}}, nil, false, 0, true, 0},
		"ends in time":              {map[time.Duration]container.ExecInspect{0: runs, time.Second: {Pid: 7}}, nil, false, 0, true, 2 * time.Second},
		"runs on":                   {map[time.Duration]container.ExecInspect{0: runs}, nil, false, 7, false, limit},
		"starts late and runs on":   {map[time.Duration]container.ExecInspect{0: notYet, 10 * time.Second: runs}, nil, false, 7, false, 10*time.Second + 2*limit},
		"never starts":              {map[time.Duration]container.ExecInspect{0: notYet}, nil, false, 0, false, startWithin + 2*limit},
		"runs, nobody waits":        {map[time.Duration]container.ExecInspect{0: runs}, nil, true, 7, false, 0},
		"starts late, nobody waits": {map[time.Duration]container.ExecInspect{0: notYet, 10 * time.Second: runs}, nil, true, 7, false, 11 * time.Second},
		"the engine is slow":        {map[time.Duration]container.ExecInspect{0: runs}, map[time.Duration]error{0: engine.ErrUnavailable, time.Second: nil}, false, 7, false, limit},
		"the container is gone":     {nil, map[time.Duration]error{0: engine.ErrNotFound}, false, 0, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.cancelled {
					cancel()
				}
				pid, over := outlives(ctx, context.WithoutCancel(ctx), func(context.Context) (container.ExecInspect, error) {
					return last(tt.states, time.Since(begun)), last(tt.errs, time.Since(begun))
				}, limit)
				if took := time.Since(begun); pid != tt.pid || over != tt.over || took > tt.took || took < tt.took/2 {
					t.Errorf("pid %d, over %t after %s; want %d, %t within %s", pid, over, took, tt.pid, tt.over, tt.took)
				}
			})
		})
	}
}

// last returns the value of the latest time that has come.
func last[V any](values map[time.Duration]V, now time.Duration) (value V) {
	latest := time.Duration(-1)
	for at, v := range values {
		if at <= now && at > latest {
			latest, value = at, v
		}
	}
	return value
}
