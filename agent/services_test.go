package agent_test

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caravanserai/cara/agent/engine"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

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
			if c.State != engine.StateExited {
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
		f.engine.Remote("registry/app:1", fmt.Errorf("%w: 503", engine.ErrRegistry))
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
		f.wait(t, "p", func(p *carav1.Project) bool { // progress: asked for is not begun, and what never began is not given up
			return strings.Contains(api.FindCondition(p.GetStatus().GetConditions(), api.CondImagesReady).GetMessage(), "far: 0 of 1 layers")
		})
		f.terminate("p")
		f.wait(t, "p", gone)
		waitUntil(t, func() bool { return f.engine.Calls("PullImage given up") == 1 })
	})
}

func TestForeignContainerInTheWay(t *testing.T) {
	f := newFaked(t)
	spec := engine.ContainerSpec{Name: "cara-p.a", Service: &carav1.Service{Name: "a", Image: "web"}}
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
	before := f.inspected(t, f.up(t, services("web", "web")))
	f.edit("p", func(p *carav1.Project) { p.Status.RestartToken, p.Status.Restarts = "t1", map[string]string{"b": "t1"} })
	waitUntil(t, func() bool {
		c := f.inspected(t, f.containers(t))["cara-p.b"]
		return c.StartedAt.After(before["cara-p.b"].StartedAt) && c.State == engine.StateRunning
	})
	after := f.inspected(t, f.containers(t))
	if after["cara-p.b"].ID != before["cara-p.b"].ID {
		t.Error("the container was made anew, and its log is gone")
	}
	if !after["cara-p.a"].StartedAt.Equal(before["cara-p.a"].StartedAt) {
		t.Error("a service that was not named was restarted")
	}
}

// inspected has the containers with all that the engine knows of them, by name.
func (f *faked) inspected(t *testing.T, list map[string]engine.Container) map[string]engine.Container {
	t.Helper()
	out := map[string]engine.Container{}
	for name, c := range list {
		c, err := f.engine.InspectContainer(t.Context(), c.ID)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = c
	}
	return out
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
	if diff := cmp.Diff([]engine.File{{Path: "/etc/app", Content: []byte("x"), Mode: 0o400}}, got); diff != "" {
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
	during := func() int { // the inspects during three beats
		inspects, beats := f.engine.Calls("InspectContainer"), f.engine.Calls("Ping")
		waitUntil(t, func() bool { return f.engine.Calls("Ping") > beats+2 })
		return f.engine.Calls("InspectContainer") - inspects
	}
	waitUntil(t, func() bool { return during() == 0 }) // the last looks after the last start are over
	if n := during(); n > 0 {
		t.Errorf("%d inspects while nothing happens", n)
	}
}

// TestSignalWaitsForRequests: at a teardown and at an update alike.
func TestSignalWaitsForRequests(t *testing.T) {
	for name, leave := range map[string]func(f *faked){
		"teardown": func(f *faked) { f.terminate("p") },
		"update":   func(f *faked) { f.put("p", services("job")) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaked(t)
			f.up(t, services("web"))
			_, release, ok := f.agent.Endpoints().Acquire("p", "a")
			if !ok {
				t.Fatal("no endpoint")
			}
			var early atomic.Bool
			var done atomic.Bool
			f.engine.Fault(func(call string) error {
				if call == "StopContainer" && !done.Load() {
					early.Store(true)
				}
				return nil
			})
			left := f.agent.Endpoints().Changed() // at an update, the next container takes its place in the endpoints in a moment
			leave(f)
			waitUntil(t, func() bool {
				select {
				case <-left:
					return true
				default:
					return false
				}
			})
			done.Store(true)
			release()
			waitUntil(t, func() bool { return f.engine.Calls("StopContainer") == 1 })
			if early.Load() {
				t.Error("the container was told to stop while it answered a request")
			}
		})
	}
}

// TestSignalWaitsNotForEver: an endless request delays the stop of a container for at most its grace period.
func TestSignalWaitsNotForEver(t *testing.T) {
	f := newFaked(t)
	f.cfg.Relist = time.Hour // nothing else wakes it
	spec := services("web", "web")
	spec.Services[0].StopGracePeriod = "1s"
	f.up(t, spec)
	if _, _, ok := f.agent.Endpoints().Acquire("p", "a"); !ok {
		t.Fatal("no endpoint")
	}
	f.terminate("p")
	f.wait(t, "p", gone)
}
