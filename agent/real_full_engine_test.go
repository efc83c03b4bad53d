package agent_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caravanserai/cara/agent/docker"
	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// TestRealEngineDiskFull fills the disk of an engine of its own while a project is updated: the engine is asked a few times, the condition says
// why the project waits, and the project runs once there is room again.
func TestRealEngineDiskFull(t *testing.T) {
	t.Parallel()
	testneed.NotShort(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256m,mode=711"); err != nil {
		testneed.Missing(t, "a small file system cannot be mounted (it takes root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	second := testdocker.SecondEngineOn(t, dir+"/data")
	testdocker.Images(t, second.Host, testimage.WebV1, testimage.WebV2)
	adapter, err := docker.New(docker.Config{Host: second.Host})
	if err != nil {
		t.Fatal(err)
	}
	defer adapter.Close()
	engine := newTimed(adapter)
	r := newRig(t, fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano()), engine)
	r.run(t)
	defer func() { r.stop() }()
	calls := func() int {
		engine.mu.Lock()
		defer engine.mu.Unlock()
		return engine.calls["CreateContainer"] + engine.calls["StartContainer"] + engine.calls["RemoveContainer"]
	}
	for i, spec := range []*carav1.ProjectSpec{services(testimage.WebV1), services(testimage.WebV1, testimage.WebV2)} {
		r.put("p", spec)
		if i == 0 {
			r.wait(t, "p", phase(api.PhaseRunning))
		}
	}
	r.wait(t, "p", phase(api.PhaseRunning))
	empty, before := fill(t, dir), calls()
	began := time.Now()
	r.put("p", services(testimage.WebV2, testimage.WebV2, testimage.WebV1))
	p := r.wait(t, "p", func(p *carav1.Project) bool {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady)
		return strings.Contains(c.GetMessage(), "no space left on device") && time.Since(began) > 5*time.Second
	})
	if n := calls() - before; n > 25 {
		t.Errorf("the engine was asked %d times in %s", n, time.Since(began))
	}
	t.Logf("%d calls in %s; %s: %v", calls()-before, time.Since(began).Round(time.Second), p.GetStatus().GetPhase(),
		api.FindCondition(p.GetStatus().GetConditions(), api.CondReady).GetMessage())
	empty()
	r.wait(t, "p", phase(api.PhaseRunning))
	r.terminate("p")
	r.wait(t, "p", gone)
}
