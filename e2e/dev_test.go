package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// TestDev is the loop of local development: a file in a directory is a project that runs.
func TestDev(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	testdocker.Images(t, host, testimage.WebV1, testimage.WebV2)
	w := devWorld(t, host)
	dir := filepath.Join(w.Dir, "manifests")
	w.must(os.Mkdir(dir, 0o700))
	w.startDev(dir, host)
	w.devSays("directory   "+dir, "address     "+w.URL(), "data        "+w.DataDir(), "caractrl get projects -w")

	name := w.name("local")
	file := filepath.Join(dir, "web.yaml")
	w.write(file, w.web(name, testimage.WebV1))
	w.running(name)
	w.answers("dev", name+".test", "/", 200, "web v1")
	w.devSays(name+" Running ", " s http://"+w.ingress["dev"]+"/ (Host: "+name+".test)\n")
	before := w.containers(host, name)

	w.write(file, strings.TrimSuffix(w.web(name, testimage.WebV2), "port: 8080}\n")) // as an editor may leave it for a moment
	w.untilSource("dev", "says that the file is broken", func(s *carav1.Source) bool {
		return condition(s.GetStatus().GetConditions(), "InvalidManifests").GetStatus() == "True"
	})
	w.devSays("web.yaml:") // and the place
	if now := w.containers(host, name); !maps.Equal(now, before) {
		t.Errorf("a broken file changed the containers: %v, then %v", before, now)
	}
	w.write(file, w.web(name, testimage.WebV2))
	w.answers("dev", name+".test", "/", 200, "web v2")
	w.running(name)
	w.devSays("all files are read again without errors")
	before = w.containers(host, name)

	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.Server.Stop(ctx))
	if code := w.Server.ExitCode(); code != 0 {
		t.Errorf("exit code %d after SIGTERM\n%s", code, w.Server.Tail(20))
	}
	w.devSays("To remove it: cara-server dev --down " + dir)
	if s := w.state(host, before["web"]); !s.Running {
		t.Errorf("the container is %s when dev has ended", s.Status)
	}
	w.startDev(dir, host)
	w.answers("dev", name+".test", "/", 200, "web v2")
	if now := w.containers(host, name); !maps.Equal(now, before) {
		t.Errorf("containers were %v, and after a restart %v", before, now)
	}
	w.must(os.Remove(file))
	w.gone(name)
	w.devSays(name + " gone ")

	// --down removes what runs, also a project that no file declares, and ends. Another server may have its addresses.
	w.write(file, w.web(name, testimage.WebV1))
	w.running(name)
	byHand := w.name("byhand")
	w.apply(w.web(byHand, testimage.WebV1))
	w.running(byHand)
	w.must(w.Server.Stop(ctx))
	for _, address := range []string{w.Listen, w.ingress["dev"]} {
		taken, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		w.must(err)
		defer taken.Close()
	}
	down, err := testcluster.Start(filepath.Join(w.Dir, "down.log"), w.Env(), filepath.Join(built(t), "cara-server"), "dev", "--down", dir,
		"--data-dir", w.DataDir(), "--listen", w.Listen, "--docker-host", host, "--ingress-listen", w.ingress["dev"], "--network-pool", w.pools["dev"])
	w.must(err)
	w.must(down.Wait(ctx))
	if left := len(w.containers(host, name)) + len(w.containers(host, byHand)); left > 0 || down.ExitCode() != 0 {
		t.Errorf("dev --down ended with %d and left %d containers\n%s", down.ExitCode(), left, down.Tail(20))
	}
	if said := down.Tail(20); strings.Contains(said, "Running") || !strings.Contains(said, name+" gone ") {
		t.Errorf("dev --down says\n%s", said)
	}
}

// TestDevOfComposeFiles shows a person with directories of Compose files: first what is missing, and then that they run.
func TestDevOfComposeFiles(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	testdocker.Images(t, host, testimage.WebV1, testimage.WebV2)
	w := devWorld(t, host)
	dir, name := filepath.Join(w.Dir, "stacks"), w.name("stack")
	w.must(os.MkdirAll(filepath.Join(dir, name), 0o700))
	w.write(filepath.Join(dir, name, "compose.yaml"), "services:\n  web:\n    image: ${IMAGE}\n    restart: always\n    ports: ['80:8080']\n")
	w.write(filepath.Join(dir, name, ".env"), "IMAGE="+testimage.WebV1+"\n")
	w.startDev(dir, host)
	w.devSays("warning: "+name+"/compose.yaml is skipped: it looks like a Compose file", "start cara-server dev --format Compose\n")

	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.Server.Stop(ctx))
	w.startDev(dir, host, "--format", "Compose")
	w.devSays("Each directory with a compose.yaml is a project", name+" Running ", "(Host: "+name+")\n")
	w.answers("dev", name, "/", 200, "web v1")
	w.write(filepath.Join(dir, name, ".env"), "IMAGE="+testimage.WebV2+"\n")
	w.answers("dev", name, "/", 200, "web v2")

	// A key without an equivalent is named. A variable that was added to the source is still there after a restart.
	w.write(filepath.Join(dir, name, "compose.yaml"), "services:\n  web:\n    image: ${OTHER:-none}\n    restart: always\n    hostname: x\n    ports: ['80:8080']\n")
	w.devSays(name + "/compose.yaml:5:5 services.web.hostname: has no equivalent")
	before, _, _ := strings.Cut(w.ctl("", "get", "source", "dev", "-o", "yaml").Stdout, "\nstatus:")
	before = regexp.MustCompile(`(?m)^  resourceVersion: .*\n`).ReplaceAllString(before, "") // the source's status may change meanwhile
	w.apply(before + "\n  vars:\n  - {name: OTHER, value: " + testimage.WebV1 + "}\n")
	w.must(w.Server.Stop(ctx))
	w.startDev(dir, host, "--format", "Compose", "--lossy")
	w.answers("dev", name, "/", 200, "web v1")
	w.must(os.Remove(filepath.Join(dir, name, "compose.yaml")))
	w.gone(name)
}

// TestDevFailsAtOnce shows what a person has to do before anything is started.
func TestDevFailsAtOnce(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	usage, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer usage.Close()
	for name, tt := range map[string]struct{ host, ingress, want string }{
		"no engine":         {"unix:///nonexistent/docker.sock", "127.0.0.1:0", "no Docker engine answers at unix:///nonexistent/docker.sock; start Docker"},
		"the port is taken": {host, usage.Addr().String(), "--ingress-listen " + usage.Addr().String() + " cannot be used; stop what listens there"},
	} {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			cmd := exec.CommandContext(t.Context(), filepath.Join(built(t), "cara-server"), "dev", t.TempDir(), "--data-dir", filepath.Join(data, "state"),
				"--listen", "127.0.0.1:0", "--docker-host", tt.host, "--ingress-listen", tt.ingress)
			cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+data)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), tt.want) || strings.Contains(string(out), "Cara runs") {
				t.Errorf("%v\n%s\nwant %q", err, out, tt.want)
			}
			if _, err := os.Stat(filepath.Join(data, "cara", "contexts.json")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a start that failed stored a context: %v", err)
			}
		})
	}
}

// devSays waits until cara-server dev has printed each of the texts.
func (w *testCluster) devSays(texts ...string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	for _, text := range texts {
		w.must(testcluster.WaitFor(ctx, "cara-server dev prints "+text, func(context.Context) error {
			log, err := os.ReadFile(w.Server.LogFile)
			if err == nil && !strings.Contains(string(log), text) {
				err = fmt.Errorf("it printed\n%s", log)
			}
			return err
		}))
	}
}

// devWorld is a cluster in which nothing runs yet.
func devWorld(t *testing.T, host string) *testCluster {
	t.Helper()
	cluster, err := testcluster.New(testcluster.Config{Dir: t.TempDir(), Bin: built(t)})
	if err != nil {
		t.Fatal(err)
	}
	w := worldOf(t, cluster)
	w.engines, w.pools["dev"] = []string{host}, <-pools
	w.ingress["dev"], err = testcluster.FreeAddress()
	w.must(err)
	return w
}

func (w *testCluster) startDev(dir, host string, more ...string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.StartDev(ctx, dir, append(more, "--docker-host", host, "--ingress-listen", w.ingress["dev"], "--network-pool", w.pools["dev"])...))
	w.ready("dev")
}
