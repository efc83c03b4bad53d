package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/caravanserai/cara/agent"
	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// withJob is a service that serves and a job that ends with a code.
func withJob(image, code string) *carav1.ProjectSpec {
	return &carav1.ProjectSpec{Services: []*carav1.Service{
		{Name: "web", Image: image},
		{Name: "migrate", Image: testimage.Job, Args: []string{"-lines", "1", "-exit", code}, RestartPolicy: api.RestartNever},
	}}
}

// untilServed waits until the agent has noted that the project serves.
func (r *onDocker) untilServed(t *testing.T, project string) {
	t.Helper()
	waitUntil(t, func() bool {
		record, err := os.ReadFile(filepath.Join(r.cfg.DataDir, "records", project+".json"))
		return err == nil && strings.Contains(string(record), `"served":`)
	})
}

// TestRealUpdateKeepsWhatServes tries updates that cannot come up on a project that serves.
func TestRealUpdateKeepsWhatServes(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.cfg.Restart.Settle = 5 * time.Second // a slow machine takes longer to crash than the tests' own
	r.run(t)
	project := uniqueName("kept")
	r.put(project, withJob(testimage.WebV1, "0"))
	r.wait(t, project, phase(api.PhaseRunning))
	r.untilServed(t, project)
	web := r.ids(t)["cara-"+project+".web"]
	started := func() string {
		c, err := r.docker(t).ContainerInspect(t.Context(), web)
		if err != nil || !c.State.Running {
			t.Fatalf("the container that served does not run: %v", err)
		}
		return c.State.StartedAt
	}
	at := started()
	absent := withJob("cara-fixtures/none:1", "0")
	absent.Services[0].PullPolicy = api.PullNever
	for _, c := range []struct {
		name    string
		spec    *carav1.ProjectSpec
		message string
		stopped bool // it had to be stopped to try
	}{
		{"a job fails", withJob(testimage.WebV1, "3"), "migrate exited with code 3", false},
		{"an image is not there", absent, "cara-fixtures/none:1", false},
		{"it crashes", &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "web", Image: testimage.Job, Args: []string{"-exit", "4"}}}}, "web exited with code 4", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.put(project, c.spec)
			p := r.wait(t, project, reason(api.ReasonUpdateFailed))
			if m := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady).GetMessage(); !strings.Contains(m, c.message) {
				t.Errorf("the condition lacks %q:\n%s", c.message, m)
			}
			waitUntil(t, func() bool { ip, ok := r.agent.Endpoints().IP(project, "web"); return ok && ip != "" })
			if now := started(); now != at && !c.stopped {
				t.Errorf("what serves was started at %s and again at %s", at, now)
			}
			at = started()
		})
	}
}

// TestRealCompletedJobRunsOnce prunes containers, as people do, and starts another agent.
func TestRealCompletedJobRunsOnce(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.run(t)
	project := uniqueName("once")
	r.put(project, withJob(testimage.WebV1, "0"))
	p := r.wait(t, project, func(p *carav1.Project) bool {
		return phase(api.PhaseRunning)(p) && p.GetStatus().GetServices()[1].GetState() == "Completed"
	})
	id := p.GetStatus().GetServices()[1].GetContainerId()
	prune := filters.NewArgs(filters.Arg("label", api.LabelProject+"="+project))
	pruned, err := r.docker(t).ContainersPrune(t.Context(), prune)
	if err != nil || len(pruned.ContainersDeleted) != 1 || pruned.ContainersDeleted[0] != id {
		t.Fatalf("pruned %v (%v), want %s", pruned.ContainersDeleted, err, id)
	}
	r.stop()
	reports := r.reported()
	r.run(t)
	waitUntil(t, func() bool { return r.reported() > reports })
	kill := r.ids(t)["cara-"+project+".web"]
	if err := r.docker(t).ContainerKill(t.Context(), kill, "KILL"); err != nil {
		t.Fatal(err)
	}
	r.wait(t, project, func(p *carav1.Project) bool { return p.GetStatus().GetServices()[0].GetRestarts() > 0 })
	if at, again := r.ids(t)["cara-"+project+".migrate"]; again {
		t.Errorf("the job runs again: %s", at)
	}
	if got := r.wait(t, project, phase(api.PhaseRunning)).GetStatus().GetServices()[1]; got.GetState() != "Completed" || got.GetContainerId() != id {
		t.Errorf("the job's status is %v", got)
	}
	changed := withJob(testimage.WebV1, "0")
	changed.Services[1].Args = append(changed.Services[1].Args, "-after", "1ms")
	r.put(project, changed)
	r.wait(t, project, func(p *carav1.Project) bool { // not before its end: a container that is being created would outlive the test
		job := p.GetStatus().GetServices()[1]
		return job.GetState() == "Completed" && job.GetContainerId() != id
	})
}

// TestRealHealedAtTheEvent: the engine's events alone bring the agent to look, with no list of all for an hour.
func TestRealHealedAtTheEvent(t *testing.T) {
	t.Parallel()
	m := newMeddlerOf(t, "healed", func(c *agent.Config) { c.Relist = 1 << 50 })
	t.Run("cpus set by hand", func(t *testing.T) {
		m := m.in(t)
		_, err := m.docker.ContainerUpdate(t.Context(), m.ids["web"], container.UpdateConfig{Resources: container.Resources{NanoCPUs: 5e8}})
		m.must(err)
		waitUntil(t, func() bool {
			held := m.cfg.Engine
			list, err := held.ListContainers(t.Context(), map[string]string{api.LabelProject: m.project, api.LabelService: "web"})
			if err != nil || len(list) != 1 {
				return false
			}
			c, err := held.InspectContainer(t.Context(), list[0].ID)
			return err == nil && c.Limits.NanoCPUs == 0 && c.State == engine.StateRunning
		})
	})
	t.Run("disconnected by hand", func(t *testing.T) {
		m := m.in(t)
		m.must(m.docker.NetworkDisconnect(t.Context(), "cara-"+m.project, m.ids["kv"], true))
		waitUntil(t, func() bool {
			c, err := m.docker.ContainerInspect(t.Context(), m.ids["kv"])
			return err == nil && len(c.NetworkSettings.Networks) == 1
		})
	})
}
