package agent_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testimage"
	"github.com/caravanserai/cara/internal/test/testneed"
)

// small is a file system of one MiB: call it before newReal, so that it outlives the agent.
func small(t *testing.T) string {
	t.Helper()
	testneed.NotShort(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=700"); err != nil {
		testneed.Missing(t, "a small file system cannot be mounted (it takes root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill writes until nothing more fits, and returns what makes room again.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "full")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = file.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// TestRealDiskFull fills the disk that stores the assignments. Running containers are kept running, also by the next agent.
// New and changed projects wait and report why, and so does the node. Everything is done once there is room.
func TestRealDiskFull(t *testing.T) {
	t.Parallel()
	dir := small(t)
	r := newReal(t)
	r.cfg.DataDir, r.cfg.Ping = dir, 500*time.Millisecond
	r.run(t)
	old, left, late := "old-"+name(t), "left-"+name(t), "late-"+name(t)
	r.put(old, three())
	r.put(left, &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", Image: testimage.WebV1}}})
	r.wait(t, old, phase(api.PhaseRunning))
	r.wait(t, left, phase(api.PhaseRunning))
	before := r.equal(t)

	empty := fill(t, dir)
	waits := func(p *carav1.Project) bool {
		c := api.FindCondition(p.GetStatus().GetConditions(), api.CondReady)
		return p.GetStatus().GetPhase() == api.PhaseScheduled && c.GetStatus() == api.StatusFalse && strings.Contains(c.GetMessage(), "no space left on device")
	}
	complains := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		c := api.FindCondition(r.beats[len(r.beats)-1].GetConditions(), api.CondDiskPressure)
		return c.GetStatus() == api.StatusTrue && c.GetReason() == "NotKept" && strings.Contains(c.GetMessage(), dir)
	}
	changed := three()
	changed.Services[2].Image = testimage.WebV2
	r.put(late, &carav1.ProjectSpec{Services: []*carav1.Service{{Name: "a", Image: testimage.WebV1}}})
	r.wait(t, late, waits)
	r.put(old, changed)
	r.wait(t, old, waits)
	waitUntil(t, complains)
	r.revives(t, before[old+".kv"])

	r.stop()
	beats := r.beaten()
	r.run(t)
	waitUntil(t, func() bool { return r.beaten() > beats && complains() })
	r.revives(t, before[old+".web"])
	for _, c := range r.held(t).Containers {
		if c.Labels[api.LabelProject] == late {
			t.Errorf("container %v was made though its assignment is not kept", c.Names)
		}
	}

	r.terminate(left) // which makes a little room of its own
	r.wait(t, left, gone)

	empty()
	r.wait(t, late, phase(api.PhaseRunning))
	r.wait(t, old, phase(api.PhaseRunning))
	waitUntil(t, func() bool { return !complains() })
	after := r.equal(t)
	keeps(t, before, after, old+".kv", old+".web")
	if before[old+".front"] == after[old+".front"] {
		t.Error("the changed service was not replaced")
	}
	for _, project := range []string{old, late} {
		if _, err := os.Stat(filepath.Join(dir, "assignments", project+".json")); err != nil {
			t.Error(err)
		}
	}
}

// beaten counts the heartbeats so far.
func (s *server) beaten() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.beats)
}

// revives kills a container and waits until the agent has started the same one again.
func (r *onDocker) revives(t *testing.T, id string) {
	t.Helper()
	docker := r.docker(t)
	before, err := docker.ContainerInspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if err := docker.ContainerKill(t.Context(), id, "KILL"); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool {
		c, err := docker.ContainerInspect(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return c.State.Running && c.State.StartedAt != before.State.StartedAt
	})
}
