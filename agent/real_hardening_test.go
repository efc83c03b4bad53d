package agent_test

import (
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestRealHardening asks the processes themselves what they may do.
func TestRealHardening(t *testing.T) {
	t.Parallel()
	const pids, noNewPrivileges = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null", "grep NoNewPrivs /proc/1/status"
	sleeper := func(change func(*carav1.Service)) *carav1.Service {
		s := &carav1.Service{Image: testimage.Busybox, Command: []string{"sleep", "1000"}, StopSignal: "SIGKILL"}
		change(s)
		return s
	}
	for name, c := range map[string]struct {
		byNode  bool
		service *carav1.Service
		command string
		want    string
	}{
		"pids by default":       {false, sleeper(func(*carav1.Service) {}), pids, "4096"},
		"pids by the manifest":  {false, sleeper(func(s *carav1.Service) { s.Resources = &carav1.Resources{Limits: &carav1.ResourceList{Pids: 77}} }), pids, "77"},
		"privileges by default": {false, sleeper(func(*carav1.Service) {}), noNewPrivileges, "NoNewPrivs:\t0"},
		"none by the manifest":  {false, sleeper(func(s *carav1.Service) { s.NoNewPrivileges = true }), noNewPrivileges, "NoNewPrivs:\t1"},
		"none by the node":      {true, sleeper(func(*carav1.Service) {}), noNewPrivileges, "NoNewPrivs:\t1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReal(t)
			r.cfg.Hardening.NoNewPrivileges = c.byNode
			r.run(t)
			project := uniqueName("hardened")
			c.service.Name = "a"
			r.put(project, &carav1.ProjectSpec{Services: []*carav1.Service{c.service}})
			r.wait(t, project, phase(api.PhaseRunning))
			out, err := output(t.Context(), r.cfg.Engine, r.ids(t)["cara-"+project+".a"], "sh", "-c", c.command)
			if err != nil || strings.TrimSpace(out) != c.want {
				t.Errorf("the process says %q (%v), want %q", out, err, c.want)
			}
		})
	}
}
