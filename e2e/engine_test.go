package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// wildcard is a free port on every address, so that agents in network namespaces reach the server.
func wildcard(t *testing.T) string {
	t.Helper()
	addr, err := testcluster.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return "0.0.0.0:" + port
}

// TestEngineStoppedDuringARollout: no project is called Failed or gone for it, the node says what is wrong, and all is
// as wanted once the engine is back.
func TestEngineStoppedDuringARollout(t *testing.T) { engineEnds(t, "-TERM") }

// TestEngineKilledDuringARollout: the same, and the engine had no time to write down what it was about.
func TestEngineKilledDuringARollout(t *testing.T) { engineEnds(t, "-KILL") }

func engineEnds(t *testing.T, signal string) {
	t.Parallel()
	second := testdocker.SecondEngine(t)
	w := newWorld(t, options{listen: wildcard(t)})
	w.agent("n1", second.Host, second)
	settled := w.name("settled")
	w.apply(w.web(settled, testimage.WebV1))
	w.running(settled)
	before := w.equal("n1", second.Host)

	all := []string{settled}
	manifests := ""
	for n := range 3 {
		name := w.name(fmt.Sprintf("roll%d", n))
		all = append(all, name)
		manifests += "---\n" + w.web(name, testimage.WebV2)
	}
	w.apply(manifests)
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.AwaitHeld(ctx, second.Host, "", "a rollout that is half done", func(h testdocker.Held) bool { return len(h.Containers) >= 2 }))
	w.engineAway(second, signal, all)
	w.running(all...)
	after := w.equal("n1", second.Host)
	if at := settled + ".web"; before[at] != after[at] {
		t.Errorf("the settled project's container was %.12s and is %.12s", before[at], after[at])
	}
	// And with nothing under way: what the engine took down with it comes back.
	w.engineAway(second, signal, all)
	w.running(all...)
	if again := w.equal("n1", second.Host); !maps.Equal(after, again) {
		t.Errorf("containers were %v and are %v", after, again)
	}
	for _, name := range all {
		w.answers("n1", name+".test", "/", 200, "web v")
	}
}

// engineAway ends an engine and brings it back: meanwhile the node says so, and no project is called Failed or gone.
func (w *testCluster) engineAway(second *testdocker.Second, signal string, projects []string) {
	w.Helper()
	start := w.stopEngine(second, signal)
	w.engineReady("n1", api.StatusFalse)
	for _, name := range projects {
		if phase := w.project(name).GetStatus().GetPhase(); phase != api.PhaseScheduled && phase != api.PhaseRunning {
			w.Errorf("project %s is %s while the engine is away", name, phase)
		}
	}
	start()
	w.engineReady("n1", api.StatusTrue)
}

// engineReady waits until a node's condition EngineReady has this status.
func (w *testCluster) engineReady(node, status string) {
	w.Helper()
	client, err := w.Nodes()
	w.must(err)
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, "EngineReady of node "+node+" is "+status, func(ctx context.Context) error {
		n, err := client.GetNode(ctx, &carav1.GetRequest{Name: node})
		if err != nil {
			return err
		}
		if c := condition(n.GetStatus().GetConditions(), api.CondEngineReady); c.GetStatus() != status {
			return fmt.Errorf("it is %v", c)
		}
		return nil
	}))
}

// dockerdLives reports whether the engine of a directory has a process.
func dockerdLives(dir string) bool {
	pid, err := os.ReadFile(filepath.Join(dir, "docker.pid"))
	if err != nil {
		return false
	}
	argv, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(pid)), "cmdline"))
	return err == nil && strings.Contains(string(argv), dir)
}

// stopEngine ends the daemon of an engine by a signal, as an upgrade of its package would or a crash; start brings it
// back with what it had.
func (w *testCluster) stopEngine(second *testdocker.Second, signal string) (start func()) {
	w.Helper()
	dir := filepath.Dir(strings.TrimPrefix(second.Host, "unix://"))
	pid, err := os.ReadFile(filepath.Join(dir, "docker.pid"))
	w.must(err)
	proc := "/proc/" + strings.TrimSpace(string(pid))
	argv := w.nulled(second, proc+"/cmdline")
	env := w.nulled(second, proc+"/environ")
	w.inside(second, "kill", signal, filepath.Base(proc))
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, "dockerd is gone", func(context.Context) error {
		if _, err := os.Stat(proc); err == nil {
			return fmt.Errorf("process %s lives", filepath.Base(proc))
		}
		return nil
	}))
	return func() {
		w.Helper()
		var begun time.Time
		ctx, cancel := w.patience()
		defer cancel()
		w.must(testcluster.WaitFor(ctx, "dockerd answers", func(ctx context.Context) error {
			// dockerd gives up if containerd is not there within 15 s, which happens on a busy machine; systemd starts it again, too.
			if !dockerdLives(dir) && time.Since(begun) > 5*time.Second {
				begun = time.Now()
				w.inside(second, append(append([]string{"setsid", "--fork", "env", "-i"}, env...), argv...)...) //nolint:contextcheck // the test has it
			}
			_, err := testdocker.List(ctx, second.Host, nil)
			return err
		}))
	}
}

// nulled reads a file of strings that end in NUL.
func (w *testCluster) nulled(second *testdocker.Second, file string) []string {
	w.Helper()
	text, err := second.Command(w.Context(), "cat", file).Output()
	w.must(err)
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// inside runs a command in an engine's network namespace to its end.
func (w *testCluster) inside(second *testdocker.Second, argv ...string) {
	w.Helper()
	command := second.Command(w.Context(), argv[0], argv[1:]...)
	out, err := os.CreateTemp(w.TempDir(), "out")
	w.must(err)
	defer out.Close()
	command.Stdout, command.Stderr = out, out // a file, which what is left running may keep
	if err := command.Run(); err != nil {
		w.Fatalf("%v: %v", command.Args, err)
	}
}

// cut takes the network between this machine and an engine's namespace away: containers and agent there live on.
// heal brings it back.
func (w *testCluster) cut(second *testdocker.Second) (heal func()) {
	w.Helper()
	link := func(state string) {
		w.Helper()
		argv := []string{"ip", "link", "set", "cv-" + second.Name, state}
		if os.Geteuid() != 0 {
			argv = append([]string{"sudo", "-n"}, argv...)
		}
		if out, err := exec.CommandContext(w.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			w.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	link("down")
	return func() { w.Helper(); link("up") }
}
