package agent_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
)

// footprint is what this process takes.
type footprint struct {
	goroutines, files int
	heap              uint64 // bytes in use after a collection
}

func (f footprint) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %.1f MiB", f.goroutines, f.files, float64(f.heap)/(1<<20))
}

func measure(t *testing.T) footprint {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this machine does not say which files are open")
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers let go of
	runtime.ReadMemStats(&m)
	return footprint{goroutines: runtime.NumGoroutine(), files: len(files), heap: m.HeapAlloc}
}

// TestThousandCycles creates and deletes projects with new names, so that a leak per name or per project shows up: volumes,
// checks, pulls, endpoints, reports. Every tenth project crashes and fails.
func TestThousandCycles(t *testing.T) {
	f := newFaked(t)
	f.run(t)
	cycle := func(n int) {
		name := fmt.Sprintf("p%d", n)
		spec := services("web", "far")
		f.engine.Remote("far", nil)
		spec.Volumes = []*carav1.ProjectVolume{{Name: "v"}}
		spec.Services[1].PullPolicy = api.PullAlways
		want := phase(api.PhaseRunning)
		if n%10 == 0 {
			spec.Services[0] = &carav1.Service{Name: "a", Image: "job", Args: []string{"-exit", "3"}, RestartPolicy: api.RestartNever}
			want = phase(api.PhaseFailed)
		}
		f.put(name, spec)
		f.wait(t, name, want)
		f.terminate(name)
		f.wait(t, name, gone)
		f.mu.Lock()
		delete(f.phases, name) // the test's own record
		f.beats = nil
		f.mu.Unlock()
	}
	const warm, cycles, heapRoom = 100, 1000, 384 << 10 // bytes: less than a name and a report for each cycle
	for n := range warm {
		cycle(n)
	}
	settled := func() bool { return f.empty(t) }
	waitUntil(t, settled)
	before := measure(t)
	for n := range cycles {
		cycle(warm + n)
	}
	waitUntil(t, settled)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := testcluster.WaitFor(ctx, "the agent takes no more than it did", func(context.Context) error { // what is on its way out may take a moment
		after := measure(t)
		if after.goroutines > before.goroutines+5 || after.files > before.files+2 || after.heap > before.heap+heapRoom {
			return fmt.Errorf("it took %v and takes %v", before, after)
		}
		t.Logf("%d cycles: %v, then %v", cycles, before, after)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if files, err := os.ReadDir(f.cfg.DataDir + "/assignments"); err != nil || len(files) != 0 {
		t.Errorf("assignments left on disk: %v %v", files, err)
	}
}
