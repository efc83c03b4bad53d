package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// wildcard is a free port on every address, so that agents in network namespaces reach the server.
func wildcard(t *testing.T) string {
	t.Helper()
	port, err := testcluster.FreePort()
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

// TestEngineLosesItsNetworks: dockerd can be killed so that it starts again only without its networks. The agent creates them
// again, and the containers with them.
func TestEngineLosesItsNetworks(t *testing.T) {
	t.Parallel()
	second := testdocker.SecondEngine(t)
	w := newWorld(t, options{listen: wildcard(t)})
	w.agent("n1", second.Host, second)
	name := w.name("netless")
	w.apply(w.web(name, testimage.WebV1))
	w.running(name)
	_, proc := w.dockerd(second)
	argv := w.nulled(second, proc+"/cmdline")
	start := w.stopEngine(second, "-KILL")
	w.engineReady("n1", api.StatusFalse)
	w.loseNetworks(second, argv)
	start()
	w.engineReady("n1", api.StatusTrue)
	w.running(name)
	w.answers("n1", name+".test", "/", 200, "web v")
}

// TestLeftBridge: an engine that is killed while it creates a network can leave the bridge and forget the network. The next network
// must not get the subnet of that bridge, which would take the packets to its containers.
func TestLeftBridge(t *testing.T) {
	t.Parallel()
	second := testdocker.SecondEngine(t)
	w := newWorld(t, options{listen: wildcard(t)})
	w.agent("n1", second.Host, second)
	w.inside(second, "ip", "link", "add", "br-left", "type", "bridge")
	w.inside(second, "ip", "address", "add", "10.213.0.1/27", "dev", "br-left") // the lowest of the default pool
	w.inside(second, "ip", "link", "set", "br-left", "up")
	name := w.name("beside")
	w.apply(w.web(name, testimage.WebV1))
	w.running(name)
	w.answers("n1", name+".test", "/", 200, "web v")
}

// TestEngineLosesProcesses: dockerd can be killed between the start of a process and the record of it. It then reports the container
// as stopped, cannot start it, and does not end the process, which uses the volumes of its project.
func TestEngineLosesProcesses(t *testing.T) {
	t.Parallel()
	second := testdocker.SecondEngine(t)
	w := newWorld(t, options{listen: wildcard(t)})
	w.agent("n1", second.Host, second)
	testdocker.Images(t, second.Host, testimage.Busybox)
	const deaf = `
  image: ` + testimage.Busybox + `
  command: [sh, -c, "trap : TERM; while :; do sleep 1; done"]
  stopGracePeriod: 1s`
	name := w.name("lost")
	w.apply(project(name, "services:\n- name: again"+deaf+"\n- name: once"+deaf+"\n  restartPolicy: Never"))
	w.running(name)
	w.allEnd(w.loseProcesses(second, name))
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.AwaitHeld(ctx, second.Host, name, "service again runs again", func(h testdocker.Held) bool {
		return slices.ContainsFunc(h.Containers, func(c container.Summary) bool { return c.State == container.StateRunning })
	}))

	w.must(w.Agents["n1"].Kill())
	pids := w.loseProcesses(second, name)
	w.must(w.RestartAgent("n1"))
	w.ctl("", "delete", "project", name)
	w.gone(name)
	w.allEnd(pids)
}

// loseProcesses kills an engine, changes its records of a project's containers so that none has a process, and brings the engine
// back. It returns the processes.
func (w *testCluster) loseProcesses(second *testdocker.Second, project string) (pids []int) {
	w.Helper()
	docker, err := testdocker.Client(second.Host)
	w.must(err)
	defer docker.Close()
	_, proc := w.dockerd(second)
	records := filepath.Join(w.dataRoot(w.nulled(second, proc+"/cmdline")), "containers")
	command := []string{"sed", "-i", `s/"Running":true/"Running":false/; s/"Pid":[0-9]*/"Pid":0/`}
	for _, id := range w.containers(second.Host, project) {
		c, err := docker.ContainerInspect(w.Context(), id)
		w.must(err)
		if c.State.Pid != 0 {
			pids = append(pids, c.State.Pid)
			command = append(command, filepath.Join(records, id, "config.v2.json"))
		}
	}
	start := w.stopEngine(second, "-KILL")
	w.inside(second, command...)
	for _, pid := range pids {
		if !lives(pid) {
			w.Fatalf("process %d ended with its engine", pid)
		}
	}
	start()
	return pids
}

// allEnd waits until there is no such process.
func (w *testCluster) allEnd(pids []int) {
	w.Helper()
	w.eventually("the lost processes end", func() error {
		if i := slices.IndexFunc(pids, lives); i >= 0 {
			return fmt.Errorf("process %d lives", pids[i])
		}
		return nil
	})
}

// lives reports whether there is such a process.
func lives(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err == nil
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
	dir, proc := w.dockerd(second)
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
		var said string // file with the output of the last dockerd
		ctx, cancel := w.patience()
		defer cancel()
		w.must(testcluster.WaitFor(ctx, "dockerd answers", func(ctx context.Context) error {
			// dockerd gives up if containerd is not there within 15 s, which happens on a busy machine; systemd starts it again, too.
			if !dockerdLives(dir) && time.Since(begun) > 5*time.Second {
				if begun = time.Now(); panicsOverNetworks(said) {
					w.Log("dockerd panics at each start, because it was killed while it removed a network: its networks are removed")
					w.loseNetworks(second, argv) //nolint:contextcheck // the test has it
				}
				said = w.inside(second, append(append([]string{"setsid", "--fork", "env", "-i"}, env...), argv...)...) //nolint:contextcheck // the test has it
			}
			_, err := testdocker.List(ctx, second.Host, nil)
			return err
		}))
	}
}

// dockerd returns the directory of an engine, and that of its daemon in /proc.
func (w *testCluster) dockerd(second *testdocker.Second) (dir, proc string) {
	w.Helper()
	dir = filepath.Dir(strings.TrimPrefix(second.Host, "unix://"))
	pid, err := os.ReadFile(filepath.Join(dir, "docker.pid"))
	w.must(err)
	return dir, "/proc/" + strings.TrimSpace(string(pid))
}

// nulled reads a file of strings that end in NUL.
func (w *testCluster) nulled(second *testdocker.Second, file string) []string {
	w.Helper()
	text, err := second.Command(w.Context(), "cat", file).Output()
	w.must(err)
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// inside runs a command in an engine's network namespace to its end. It returns the name of the file with its output.
func (w *testCluster) inside(second *testdocker.Second, argv ...string) string {
	w.Helper()
	command := second.Command(w.Context(), argv[0], argv[1:]...)
	out, err := os.CreateTemp(w.TempDir(), "out")
	w.must(err)
	defer out.Close()
	command.Stdout, command.Stderr = out, out // a file, which what is left running may keep
	if err := command.Run(); err != nil {
		w.Fatalf("%v: %v", command.Args, err)
	}
	return out.Name()
}

// panicsOverNetworks reports whether a dockerd has ended as each later one will: up to version 20.10, a kill between two writes
// of the removal of a network leaves a network without addresses, and dockerd panics when it reads that.
func panicsOverNetworks(log string) bool {
	text, err := os.ReadFile(log)
	return err == nil && strings.Contains(string(text), "panic: ") && strings.Contains(string(text), "libnetwork.(*controller).reservePools(")
}

// loseNetworks makes the engine with this command line forget its networks, while it does not run. An operator has no other way
// to start an engine that panics over them.
func (w *testCluster) loseNetworks(second *testdocker.Second, argv []string) {
	w.Helper()
	const remove = `rm "$0/network/files/local-kv.db" && ip -o link show type bridge | while IFS=": " read -r _ name _; do ip link del "$name"; done`
	w.inside(second, "sh", "-c", remove, w.dataRoot(argv))
}

// dataRoot returns the data directory of a dockerd with these arguments.
func (w *testCluster) dataRoot(argv []string) string {
	w.Helper()
	for _, arg := range argv {
		if data, ok := strings.CutPrefix(arg, "--data-root="); ok {
			return data
		}
	}
	w.Fatalf("dockerd has no --data-root: %q", argv)
	return ""
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
