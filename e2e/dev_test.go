package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/testcluster"
	"github.com/caravanserai/cara/internal/testdocker"
	"github.com/caravanserai/cara/internal/testimage"
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
	log, err := os.ReadFile(w.Server.LogFile)
	w.must(err)
	w.says("cara-server dev", string(log), "directory   "+dir, "address     "+w.URL(), "data        "+w.DataDir(), "caractrl get projects -w")

	name := w.name("local")
	file := filepath.Join(dir, "web.yaml")
	w.write(file, w.web(name, testimage.WebV1))
	w.running(name)
	w.answers("dev", name+".test", "/", 200, "web v1")
	before := w.containers(host, name)

	w.write(file, strings.TrimSuffix(w.web(name, testimage.WebV2), "port: 8080}\n")) // as an editor may leave it for a moment
	w.untilSource("dev", "says that the file is broken", func(s *carav1.Source) bool {
		return condition(s.GetStatus().GetConditions(), "InvalidManifests").GetStatus() == "True"
	})
	if now := w.containers(host, name); !maps.Equal(now, before) {
		t.Errorf("a broken file changed the containers: %v, then %v", before, now)
	}
	w.write(file, w.web(name, testimage.WebV2))
	w.answers("dev", name+".test", "/", 200, "web v2")
	w.running(name)
	before = w.containers(host, name)

	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.Server.Stop(ctx))
	if code := w.Server.ExitCode(); code != 0 {
		t.Errorf("exit code %d after SIGTERM\n%s", code, w.Server.Tail(20))
	}
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
}

// devWorld is a cluster in which nothing runs yet.
func devWorld(t *testing.T, host string) *world {
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

func (w *world) startDev(dir, host string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.StartDev(ctx, dir, "--docker-host", host, "--ingress-listen", w.ingress["dev"], "--network-pool", w.pools["dev"]))
	w.ready("dev")
}
