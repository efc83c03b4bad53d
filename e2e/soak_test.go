package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// soakEnv makes the tests that can take long do so.
const soakEnv = "CARA_SOAK"

// often is how often, or of how many, where there is time for it and where there is not.
func often(soak, otherwise int) int {
	if os.Getenv(soakEnv) != "" {
		return soak
	}
	return otherwise
}

// TestCyclesLeaveNothing makes and deletes a project again and again, and compares what the programs take at the end with
// what they took once they had warmed up.
func TestCyclesLeaveNothing(t *testing.T) {
	w := oneNode(t)
	host := w.engines[0]
	cycles := often(1000, 10)
	name := w.name("cycle")
	cycle := func() {
		w.apply(w.web(name, testimage.WebV1))
		w.running(name)
		if r := w.ctl("", "delete", "project", name); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		w.gone(name)
	}
	warm := max(cycles/10, 3)
	for range warm {
		cycle()
	}
	agent, server := w.usageWithFiles(w.Agents["n1"]), w.usageWithFiles(w.Server)
	begun := time.Now()
	for n := warm; n < cycles; n++ {
		cycle()
		if n == cycles*2/3 { // by then the server has all the newest changes in memory that it keeps for watchers
			server = w.usageWithFiles(w.Server)
		}
		if n%100 == 0 {
			t.Logf("%d cycles: agent %v, server %v", n, w.usageWithFiles(w.Agents["n1"]), w.usageWithFiles(w.Server))
		}
	}
	t.Logf("%d cycles, %s each; agent %v, then %v; server %v, then %v", cycles, (time.Since(begun) / time.Duration(cycles-warm)).Round(time.Millisecond),
		agent, w.usageWithFiles(w.Agents["n1"]), server, w.usageWithFiles(w.Server))
	w.grewNot("cara-agent", agent, func() usage { return w.usageWithFiles(w.Agents["n1"]) })
	w.grewNot("cara-server", server, func() usage { return w.usageWithFiles(w.Server) })
	w.equal("n1", host)
}

// usage is what a process takes of the machine.
type usage struct {
	testcluster.Usage
	files int
}

func (u usage) String() string {
	return fmt.Sprintf("%.1f MiB, %d files, %d threads", float64(u.Resident)/(1<<20), u.files, u.Threads)
}

func (w *testCluster) usageWithFiles(p *testcluster.Process) usage {
	w.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
	w.must(err)
	return usage{w.usage(p), len(files)}
}

// Room for what comes and goes: memory that the garbage collector has not got back to, connections that idle.
const (
	roomBytes = 32 << 20
	roomFiles = 12
)

// grewNot waits until a process takes no more than it did, but for that room.
func (w *testCluster) grewNot(program string, before usage, now func() usage) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	err := testcluster.WaitFor(ctx, program+" takes no more than it did", func(context.Context) error {
		if after := now(); after.Resident > before.Resident+roomBytes || after.files > before.files+roomFiles || after.Threads > before.Threads+roomFiles {
			return fmt.Errorf("it took %v and takes %v", before, after)
		}
		return nil
	})
	if err != nil {
		w.Error(err)
	}
}

// TestTwoHundredProjectsAtOnce are applied with one call and deleted with many at once.
func TestTwoHundredProjectsAtOnce(t *testing.T) {
	many := often(200, 0)
	if many == 0 {
		t.Skip("it takes minutes: make soak")
	}
	host := testdocker.Engine(t)
	t.Parallel()
	w := newWorld(t, options{})
	testdocker.Images(t, host, testimage.WebV1)
	w.engines = append(w.engines, host)
	// The part of the pool that a test gets holds 128 networks, which is less than many.
	w.startAgent(testcluster.Agent{Name: "n1", DockerHost: host, Pool: "10.216.0.0/18"})
	var names []string
	manifests := ""
	for n := range many {
		names = append(names, w.name(fmt.Sprintf("p%03d", n)))
		manifests += "---\n" + w.web(names[n], testimage.WebV1)
	}
	begun := time.Now()
	w.apply(manifests)
	w.patiently(names, w.AwaitRunning)
	t.Logf("%d projects Running: %s; agent %v, server %v", many, time.Since(begun).Round(time.Millisecond), w.usageWithFiles(w.Agents["n1"]), w.usageWithFiles(w.Server))
	if ids := w.equal("n1", host); len(ids) != many {
		t.Errorf("%d containers, want %d", len(ids), many)
	}
	w.answers("n1", names[many-1]+".test", "/", 200, "web v1")
	begun = time.Now()
	client, err := w.Projects()
	w.must(err)
	var calls errgroup.Group
	for _, name := range names {
		calls.Go(func() error {
			_, err := client.DeleteProject(t.Context(), &carav1.DeleteProjectRequest{Name: name, NoWait: true})
			return err
		})
	}
	w.must(calls.Wait())
	w.patiently(names, w.AwaitGone)
	t.Logf("%d projects gone: %s; agent %v, server %v", many, time.Since(begun).Round(time.Millisecond), w.usageWithFiles(w.Agents["n1"]), w.usageWithFiles(w.Server))
	w.equal("n1", host)
}

// patiently waits as long as many projects may take.
func (w *testCluster) patiently(names []string, await func(context.Context, ...string) error) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 10*time.Minute)
	defer cancel()
	w.must(await(ctx, names...))
}
