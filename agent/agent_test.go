package agent_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent"
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
	engine := fake.New("web", "web:2", "job")
	f := &faked{rig: newRig(t, "c1", engine), engine: engine}
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
func (f *faked) containers(t *testing.T) map[string]agent.Container {
	t.Helper()
	list, err := f.engine.ListContainers(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]agent.Container{}
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

func ids(containers map[string]agent.Container) map[string]string {
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
func (f *faked) up(t *testing.T, spec *carav1.ProjectSpec) map[string]agent.Container {
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

// TestLostAnswers loses the first answer of each kind of call: what was done must be found again, never done twice.
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
					return fmt.Errorf("%s: %w", c, agent.ErrUnavailable)
				}
				return nil
			})
			spec := services("web", "far")
			spec.Volumes = []*carav1.Volume{{Name: "v"}}
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
	waitUntil(t, func() bool { return f.containers(t)["cara-p.b"].State == agent.StateRunning })
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
	foreign := agent.ContainerSpec{
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
	spec.Volumes = []*carav1.Volume{{Name: "v"}}
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

func TestCrashLoopFails(t *testing.T) {
	f := newFaked(t)
	spec := services("web", "job")
	spec.Services[1].Args = []string{"-lines", "30", "-exit", "3"}
	f.run(t)
	f.put("p", spec)
	p := f.wait(t, "p", phase(api.PhaseFailed))
	ready := api.FindCondition(p.Status.Conditions, api.CondReady)
	for _, want := range []string{"service b exited with code 3", "5 restarts", "line 30 of 30", "exit 3"} {
		if !strings.Contains(ready.GetMessage(), want) {
			t.Errorf("message lacks %q:\n%s", want, ready.GetMessage())
		}
	}
	if strings.Contains(ready.GetMessage(), "line 1 of 30") || ready.GetReason() != "CrashLoop" {
		t.Errorf("condition %v", ready)
	}
	waitUntil(t, func() bool {
		for _, c := range f.containers(t) {
			if c.State != agent.StateExited {
				return false
			}
		}
		return true
	})
	if got := len(f.containers(t)); got != 2 {
		t.Errorf("%d containers are kept for their logs, want 2", got)
	}
	f.put("p", services("web", "web"))
	f.wait(t, "p", phase(api.PhaseRunning))
}

func TestImages(t *testing.T) {
	t.Run("not there", func(t *testing.T) {
		f := newFaked(t)
		f.run(t)
		f.put("p", services("web", "registry/none:1"))
		p := f.wait(t, "p", phase(api.PhaseFailed))
		c := api.FindCondition(p.Status.Conditions, api.CondPhase)
		if c.GetReason() != "ImagePullFailed" || !strings.Contains(c.GetMessage(), "service b") || !strings.Contains(c.GetMessage(), "registry/none:1") {
			t.Errorf("condition %v", c)
		}
	})
	t.Run("registry away, then back", func(t *testing.T) {
		f := newFaked(t)
		f.engine.Remote("registry/app:1", fmt.Errorf("%w: 503", agent.ErrRegistry))
		f.run(t)
		f.put("p", services("registry/app:1"))
		p := f.wait(t, "p", func(p *carav1.Project) bool {
			return api.FindCondition(p.GetStatus().GetConditions(), api.CondImagesReady).GetReason() == "PullBackoff"
		})
		if p.Status.Phase != api.PhaseScheduled {
			t.Errorf("phase %s while the registry is away", p.Status.Phase)
		}
		f.engine.Remote("registry/app:1", nil)
		p = f.wait(t, "p", phase(api.PhaseRunning))
		if got := p.Status.Services[0].ImageDigest; got != "registry/app:1@sha256:1" {
			t.Errorf("digest %q", got)
		}
	})
	t.Run("one pull for many projects", func(t *testing.T) {
		f := newFaked(t)
		f.engine.Remote("far", nil)
		gate := make(chan struct{})
		f.engine.Gate(gate)
		f.run(t)
		for i := range 20 {
			f.put(fmt.Sprint("p", i), services("far"))
		}
		for i := range 20 {
			f.wait(t, fmt.Sprint("p", i), func(p *carav1.Project) bool {
				c := api.FindCondition(p.GetStatus().GetConditions(), api.CondImagesReady)
				return strings.Contains(c.GetMessage(), "far: 0 of 1 layers") // it waits for the pull, and says how far it is
			})
		}
		close(gate)
		for i := range 20 {
			f.wait(t, fmt.Sprint("p", i), phase(api.PhaseRunning))
		}
		if pulls := f.engine.Calls("PullImage"); pulls != 1 {
			t.Errorf("%d pulls, want 1", pulls)
		}
	})
	t.Run("a pull that nobody waits for any more", func(t *testing.T) {
		f := newFaked(t)
		f.engine.Remote("far", nil)
		f.engine.Gate(make(chan struct{}))
		f.run(t)
		f.put("p", services("far"))
		f.wait(t, "p", func(p *carav1.Project) bool {
			return api.FindCondition(p.GetStatus().GetConditions(), api.CondImagesReady).GetReason() == "Pulling"
		})
		f.terminate("p")
		f.wait(t, "p", gone)
		waitUntil(t, func() bool { return f.engine.Calls("PullImage given up") == 1 })
	})
}

func TestForeignContainerInTheWay(t *testing.T) {
	f := newFaked(t)
	spec := agent.ContainerSpec{Name: "cara-p.a", Service: &carav1.Service{Name: "a", Image: "web"}}
	if _, err := f.engine.CreateContainer(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	f.run(t)
	f.put("p", services("web"))
	p := f.wait(t, "p", phase(api.PhaseFailed))
	if c := api.FindCondition(p.Status.Conditions, api.CondPhase); c.GetReason() != "NameTaken" {
		t.Errorf("condition %v", c)
	}
	f.terminate("p")
	f.wait(t, "p", gone)
	if got := f.containers(t); len(got) != 1 {
		t.Errorf("containers %v, want the foreign one", got)
	}
}

func TestRestartRequest(t *testing.T) {
	f := newFaked(t)
	before := f.up(t, services("web", "web"))
	f.edit("p", func(p *carav1.Project) { p.Status.RestartToken, p.Status.RestartServices = "t1", []string{"b"} })
	waitUntil(t, func() bool {
		c, ok := f.containers(t)["cara-p.b"]
		return ok && c.ID != before["cara-p.b"].ID && c.State == agent.StateRunning
	})
	if f.containers(t)["cara-p.a"].ID != before["cara-p.a"].ID {
		t.Error("a service that was not named was restarted")
	}
}

func TestOneShotsComplete(t *testing.T) {
	f := newFaked(t)
	spec := services("web", "job")
	spec.Services[1].Args, spec.Services[1].RestartPolicy = []string{"-after", "10ms"}, api.RestartNever
	spec.Services[0].DependsOn = []*carav1.Dependency{{Service: "b", Condition: api.DependsCompleted}}
	f.run(t)
	f.put("p", spec)
	p := f.wait(t, "p", phase(api.PhaseRunning))
	if got := p.Status.Services[1]; got.State != "Completed" || got.GetExitCode() != 0 {
		t.Errorf("one-shot: %v", got)
	}
}

func TestHealthAndEndpoints(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := int32(listener.Addr().(*net.TCPAddr).Port)
	f := newFaked(t)
	spec := services("web")
	spec.Services[0].Healthcheck = &carav1.Healthcheck{Tcp: &carav1.TCPCheck{Port: port}, Interval: "20ms", Retries: 2}
	f.up(t, spec)
	if _, ok := f.agent.Endpoints().IP("p", "a"); !ok {
		t.Error("a healthy service is no endpoint")
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	p := f.wait(t, "p", func(p *carav1.Project) bool { return !api.IsTrue(p.GetStatus().GetConditions(), api.CondReady) })
	if p.Status.Phase != api.PhaseRunning || p.Status.Services[0].Health != "Unhealthy" {
		t.Errorf("status of an unhealthy service: %v", p.Status)
	}
	waitUntil(t, func() bool { _, ok := f.agent.Endpoints().IP("p", "a"); return !ok })
}

func TestHealthNeverPasses(t *testing.T) {
	f := newFaked(t)
	spec := services("web")
	spec.Services[0].Healthcheck = &carav1.Healthcheck{Exec: &carav1.ExecCheck{Command: []string{"/job", "-exit", "1"}}, Interval: "20ms", Retries: 2}
	f.run(t)
	f.put("p", spec)
	p := f.wait(t, "p", phase(api.PhaseFailed))
	if c := api.FindCondition(p.Status.Conditions, api.CondPhase); c.GetReason() != "HealthCheckFailed" {
		t.Errorf("condition %v", c)
	}
}

func TestServiceLeavesEndpointsBeforeItsSignal(t *testing.T) {
	f := newFaked(t)
	f.up(t, services("web"))
	var late atomic.Bool
	f.engine.Fault(func(call string) error {
		if _, ok := f.agent.Endpoints().IP("p", "a"); ok && call == "StopContainer" {
			late.Store(true)
		}
		return nil
	})
	f.terminate("p")
	f.wait(t, "p", gone)
	if late.Load() {
		t.Error("the container was told to stop while it was still an endpoint")
	}
}

func TestFilesAreThereAtEveryFirstStart(t *testing.T) {
	f := newFaked(t)
	spec := services("web")
	spec.Services[0].Files = []*carav1.File{{Path: "/etc/app", Content: "x", Mode: "0400"}}
	got := f.engine.Files(f.up(t, spec)["cara-p.a"].ID)
	if diff := cmp.Diff([]agent.File{{Path: "/etc/app", Content: []byte("x"), Mode: 0o400}}, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestLogStream(t *testing.T) {
	f := newFaked(t)
	spec := services("job", "job")
	for _, s := range spec.Services {
		s.Args = []string{"-lines", "3", "-after", "1h"}
	}
	f.up(t, spec)
	f.mu.Lock()
	f.send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_OpenStream{OpenStream: &carav1.OpenStream{
		StreamId: "s1", Kind: &carav1.OpenStream_Logs{Logs: &carav1.LogsRequest{Name: "p", Tail: 2}},
	}}})
	f.send(&carav1.ConnectResponse{Message: &carav1.ConnectResponse_OpenStream{OpenStream: &carav1.OpenStream{
		StreamId: "s2", Kind: &carav1.OpenStream_Logs{Logs: &carav1.LogsRequest{Name: "none"}},
	}}})
	f.mu.Unlock()
	waitUntil(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.closed["s1"] && f.closed["s2"]
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	count := map[string]int{}
	for _, m := range f.lines["s1"] {
		count[m.GetLog().GetService()]++
	}
	if diff := cmp.Diff(map[string]int{"a": 2, "b": 2}, count); diff != "" {
		t.Errorf("lines by service (-want +got):\n%s", diff)
	}
	if l := f.lines["s2"]; len(l) != 1 || !strings.Contains(l[0].GetError(), "no container") {
		t.Errorf("stream of nothing: %v", l)
	}
}

func TestIdleAsksLittle(t *testing.T) {
	f := newFaked(t)
	f.cfg.Relist = time.Hour
	f.up(t, services("web", "web"))
	f.put("q", services("web"))
	f.wait(t, "q", phase(api.PhaseRunning))
	inspects, beats := f.engine.Calls("InspectContainer"), f.engine.Calls("Ping")
	waitUntil(t, func() bool { return f.engine.Calls("Ping") > beats+2 })
	if now := f.engine.Calls("InspectContainer"); now-inspects > 4 { // a last look after the last start
		t.Errorf("%d inspects while nothing happens", now-inspects)
	}
}
