package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/agent/enginetest/fake"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// faked is an agent over the engine in memory.
type faked struct {
	*rig
	engine *fake.Engine
}

func newFaked(t *testing.T) *faked {
	eng := fake.New("web", "web:2", "job")
	f := &faked{rig: newRig(t, "c1", eng), engine: eng}
	f.cfg.Relist, f.cfg.OrphanGrace, f.cfg.ServerGrace = 50*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	f.cfg.MaxBackoff, f.cfg.Ping = 50*time.Millisecond, 50*time.Millisecond
	t.Cleanup(func() {
		if f.stop != nil {
			f.stop()
		}
	})
	return f
}

// containers of all, by name.
func (f *faked) containers(t *testing.T) map[string]engine.Container {
	t.Helper()
	list, err := f.engine.ListContainers(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]engine.Container{}
	for _, c := range list {
		out[c.Name] = c
	}
	return out
}

func (f *faked) empty(t *testing.T) bool {
	t.Helper()
	networks, err := f.engine.ListNetworks(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	volumes, err := f.engine.ListVolumes(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return len(f.containers(t))+len(networks)+len(volumes) == 0
}

func ids(containers map[string]engine.Container) map[string]string {
	out := map[string]string{}
	for name, c := range containers {
		out[name] = c.ID + " " + c.StartedAt.String()
	}
	return out
}

func services(images ...string) *carav1.ProjectSpec {
	spec := &carav1.ProjectSpec{}
	for i, image := range images {
		spec.Services = append(spec.Services, &carav1.Service{Name: string(rune('a' + i)), Image: image})
	}
	return spec
}

// up starts an agent and brings a project up.
func (f *faked) up(t *testing.T, spec *carav1.ProjectSpec) map[string]engine.Container {
	t.Helper()
	f.run(t)
	f.put("p", spec)
	f.wait(t, "p", phase(api.PhaseRunning))
	return f.containers(t)
}

func TestEngineAwayHarmsNothing(t *testing.T) {
	f := newFaked(t)
	before := f.up(t, services("web", "web"))
	f.engine.Down(true)
	engineReady := func(want string) func() bool {
		return func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.beats) > 0 && api.FindCondition(f.beats[len(f.beats)-1].GetConditions(), api.CondEngineReady).GetStatus() == want
		}
	}
	waitUntil(t, engineReady(api.StatusFalse))
	f.put("q", services("web"))
	f.engine.Down(false)
	waitUntil(t, engineReady(api.StatusTrue))
	f.wait(t, "q", phase(api.PhaseRunning))
	after := f.containers(t)
	delete(after, "cara-q.a")
	if diff := cmp.Diff(ids(before), ids(after)); diff != "" {
		t.Errorf("containers (-before +after):\n%s", diff)
	}
	if got := f.phasesOf("p"); !slices.Equal(got, []string{api.PhaseRunning}) {
		t.Errorf("phases of p: %v", got)
	}
}

// TestLostAnswers loses the first response of each kind of call. The agent must find what was done and never do it twice.
func TestLostAnswers(t *testing.T) {
	for _, call := range []string{
		"CreateNetwork", "CreateVolume", "CreateContainer", "StartContainer", "ListContainers", "InspectContainer",
		"InspectImage", "PullImage", "StopContainer", "RemoveContainer", "RemoveNetwork", "RemoveVolume", "ListNetworks",
	} {
		t.Run(call, func(t *testing.T) {
			f := newFaked(t)
			var left atomic.Int32
			left.Store(3)
			f.engine.Remote("far", nil)
			f.engine.Lose(func(c string) error {
				if c == call && left.Add(-1) >= 0 {
					return fmt.Errorf("%s: %w", c, engine.ErrUnavailable)
				}
				return nil
			})
			spec := services("web", "far")
			spec.Volumes = []*carav1.ProjectVolume{{Name: "v"}}
			f.run(t)
			f.put("p", spec)
			f.wait(t, "p", phase(api.PhaseRunning))
			if got := f.containers(t); len(got) != 2 {
				t.Errorf("containers: %v", got)
			}
			f.terminate("p")
			f.wait(t, "p", gone)
			waitUntil(t, func() bool { return f.empty(t) })
		})
	}
}

func TestNewAgentAdopts(t *testing.T) {
	f := newFaked(t)
	before := f.up(t, services("web", "web"))
	f.stop()
	made, started := f.engine.Calls("CreateContainer"), f.engine.Calls("StartContainer")
	reports := f.reported()
	f.run(t)
	waitUntil(t, func() bool { return f.reported() > reports })
	if diff := cmp.Diff(ids(before), ids(f.containers(t))); diff != "" {
		t.Errorf("containers (-before +after):\n%s", diff)
	}
	if f.engine.Calls("CreateContainer") != made || f.engine.Calls("StartContainer") != started {
		t.Error("the new agent made or started containers")
	}
}

func TestServerAway(t *testing.T) {
	f := newFaked(t)
	secret := services("web", "web")
	secret.Services[0].Env = []*carav1.EnvVar{{Name: "P", ValueFrom: &carav1.EnvVarSource{SecretKeyRef: &carav1.SecretKeyRef{Name: "db", Key: "p"}}}}
	f.secrets["p"] = map[string][]byte{"db/p": []byte("hunter2")}
	before := f.up(t, secret)
	f.stop()
	files, err := filepath.Glob(filepath.Join(f.cfg.DataDir, "assignments", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("on disk: %v %v", files, err)
	}
	if data, err := os.ReadFile(files[0]); err != nil || strings.Contains(string(data), "hunter2") {
		t.Errorf("the assignment on disk (%v):\n%s", err, data)
	}
	f.away(true)
	f.engine.Kill(before["cara-p.b"].ID)
	f.run(t)
	waitUntil(t, func() bool { return f.containers(t)["cara-p.b"].State == engine.StateRunning })
	if diff := cmp.Diff(before["cara-p.a"], f.containers(t)["cara-p.a"]); diff != "" {
		t.Errorf("the container with a secret (-before +after):\n%s", diff)
	}
	f.away(false)
	f.terminate("p")
	f.wait(t, "p", gone)
	if files, err := filepath.Glob(filepath.Join(f.cfg.DataDir, "assignments", "*")); err != nil || len(files) != 0 {
		t.Errorf("on disk after deletion: %v %v", files, err)
	}
}

func TestMovedWhileAgentWasOff(t *testing.T) {
	f := newFaked(t)
	f.up(t, services("web"))
	f.stop()
	f.move("p")
	f.run(t)
	waitUntil(t, func() bool { return f.empty(t) })
	if got := f.phasesOf("p"); !slices.Equal(got, []string{api.PhaseRunning}) {
		t.Errorf("phases reported: %v", got)
	}
}

func TestUnassignedIsQuiet(t *testing.T) {
	f := newFaked(t)
	f.up(t, services("web", "web"))
	f.move("p")
	waitUntil(t, func() bool { return f.empty(t) })
	if got := f.phasesOf("p"); !slices.Equal(got, []string{api.PhaseRunning}) {
		t.Errorf("phases reported: %v", got)
	}
}

func TestOtherClusterChangesNothing(t *testing.T) {
	f := newFaked(t)
	before := f.up(t, services("web"))
	f.mu.Lock()
	f.cluster = "c2"
	delete(f.projects, "p")
	f.mu.Unlock()
	f.away(true)
	f.away(false)
	calls := f.engine.Calls("Ping")
	waitUntil(t, func() bool { return f.engine.Calls("Ping") >= calls && f.engine.Calls("ListNetworks") > 20 })
	if diff := cmp.Diff(ids(before), ids(f.containers(t))); diff != "" {
		t.Errorf("containers (-before +after):\n%s", diff)
	}
}

func TestOrphans(t *testing.T) {
	f := newFaked(t)
	f.up(t, services("web"))
	f.stop()
	if err := os.RemoveAll(filepath.Join(f.cfg.DataDir, "assignments")); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	delete(f.projects, "p")
	f.mu.Unlock()
	foreign := engine.ContainerSpec{
		Name: "foreign", Service: &carav1.Service{Name: "a", Image: "web"},
		Labels: map[string]string{api.LabelCluster: "c1", api.LabelNode: "n2", api.LabelProject: "p"},
	}
	if _, err := f.engine.CreateContainer(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	f.away(true)
	f.run(t)
	lists := f.engine.Calls("ListNetworks")
	waitUntil(t, func() bool { return f.engine.Calls("ListNetworks") > lists+10 })
	if len(f.containers(t)) != 2 {
		t.Error("an orphan was swept while the server was away")
	}
	f.away(false)
	waitUntil(t, func() bool { return len(f.containers(t)) == 1 })
	if _, ok := f.containers(t)["foreign"]; !ok {
		t.Error("another node's container was swept")
	}
	waitUntil(t, func() bool { return f.told("OrphansSwept") == 1 })
}

// TestRestoredServer sends an older epoch than the agent has received.
func TestRestoredServer(t *testing.T) {
	for name, lags := range map[string]bool{"for good": false, "and catches up": true} {
		t.Run(name, func(t *testing.T) {
			f := newFaked(t)
			if lags {
				f.cfg.OrphanGrace = time.Hour
			}
			f.up(t, services("web"))
			epoch := func(n int32) func(*carav1.Project) {
				return func(p *carav1.Project) { p.Status.Epoch, p.Status.Phase = n, api.PhaseScheduled }
			}
			f.edit("p", epoch(2))
			f.wait(t, "p", phase(api.PhaseRunning))
			before := f.containers(t)
			f.away(true)
			f.edit("p", epoch(1))
			f.away(false)
			if lags {
				f.put("q", services("web"))
				f.wait(t, "q", phase(api.PhaseRunning))
				f.edit("p", epoch(2))
				f.wait(t, "p", phase(api.PhaseRunning))
				if c := f.containers(t)["cara-p.a"]; c.ID != before["cara-p.a"].ID {
					t.Error("a healthy container was replaced for the word of a server that lagged behind")
				}
				return
			}
			f.wait(t, "p", phase(api.PhaseRunning))
			if c := f.containers(t)["cara-p.a"]; c.Labels[api.LabelEpoch] != "1" {
				t.Errorf("container %+v", c)
			}
			waitUntil(t, func() bool { return f.told("EpochWentBack") == 1 })
		})
	}
}

func TestEpochs(t *testing.T) {
	f := newFaked(t)
	before := f.up(t, services("web"))
	f.edit("p", func(p *carav1.Project) { p.Status.Epoch, p.Status.Phase = 2, api.PhaseScheduled })
	f.wait(t, "p", phase(api.PhaseRunning))
	second := f.containers(t)
	if c := second["cara-p.a"]; c.ID == before["cara-p.a"].ID || c.Labels[api.LabelEpoch] != "2" {
		t.Errorf("container of the new epoch: %+v", c)
	}
	f.edit("p", func(p *carav1.Project) { p.Status.Epoch, p.Spec = 1, services("web:2") })
	f.put("q", services("web"))
	f.wait(t, "q", phase(api.PhaseRunning))
	if diff := cmp.Diff(second["cara-p.a"], f.containers(t)["cara-p.a"]); diff != "" {
		t.Errorf("an older epoch was obeyed (-before +after):\n%s", diff)
	}
}

func TestSameNameAnotherProject(t *testing.T) {
	f := newFaked(t)
	spec := services("web")
	spec.Volumes = []*carav1.ProjectVolume{{Name: "v"}}
	before := f.up(t, spec)
	f.edit("p", func(p *carav1.Project) { p.Metadata.Uid, p.Status.Phase = "another", api.PhaseScheduled })
	f.wait(t, "p", phase(api.PhaseRunning))
	volumes, err := f.engine.ListVolumes(t.Context(), nil)
	if err != nil || len(volumes) != 1 || volumes[0].Labels[api.LabelUID] != "another" {
		t.Errorf("volumes %v, %v: the namesake must not see the data of the one before", volumes, err)
	}
	if f.containers(t)["cara-p.a"].ID == before["cara-p.a"].ID {
		t.Error("the namesake's container was adopted")
	}
}
