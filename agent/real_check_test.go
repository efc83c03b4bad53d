package agent_test

import (
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestRealHangingCheck: the commands of an exec check that hangs are ended one by one and do not pile up in the container.
func TestRealHangingCheck(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.run(t)
	project := name(t)
	r.put(project, &carav1.ProjectSpec{Services: []*carav1.Service{{
		Name: "a", Image: testimage.Busybox, Command: []string{"sleep", "1000"}, StopGracePeriod: "1s",
		Healthcheck: &carav1.Healthcheck{
			Exec: &carav1.ExecCheck{Command: []string{"sleep", "3600"}}, Interval: "100ms", Timeout: "200ms", Retries: 100, StartPeriod: "5m",
		},
	}}})
	p := r.wait(t, project, func(p *carav1.Project) bool {
		return len(p.GetStatus().GetServices()) == 1 && p.GetStatus().GetServices()[0].GetState() == "Running"
	})
	docker, seen := r.docker(t), map[string]bool{}
	waitUntil(t, func() bool {
		top, err := docker.ContainerTop(t.Context(), p.GetStatus().GetServices()[0].GetContainerId(), []string{"-o", "pid,args"})
		if err != nil {
			t.Fatal(err)
		}
		hanging := 0
		for _, process := range top.Processes {
			if process[1] == "sleep 3600" {
				hanging++
				seen[process[0]] = true
			}
		}
		if hanging > 1 {
			t.Fatalf("%d commands of the check run side by side: %v", hanging, top.Processes)
		}
		return len(seen) >= 3
	})
	r.terminate(project)
	r.wait(t, project, gone)
	if c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady); c.GetStatus() != api.StatusFalse {
		t.Errorf("a project with a check that hangs: %v", c)
	}
}
