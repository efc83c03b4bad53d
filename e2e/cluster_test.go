package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// patience is how long a condition may take that should hold within a second or two on a machine that has time.
const patience = 3 * time.Minute

// testCluster is one cluster with all it needs, and the verbs of the tests. What goes wrong in a verb ends the test.
type testCluster struct {
	*testing.T
	*testcluster.Cluster
	engines []string          // where the agents run containers; looked at when the test ends
	ingress map[string]string // address by node

	id      string // unique on this machine: see name
	started int    // programs that were begun
	pools   map[string]string
}

type options struct {
	serverFlags []string
	listen      string
}

var worlds atomic.Int64

// newWorld starts a server without any agent. When the test ends everything in the cluster is deleted, nothing of it
// may be left in the engines, and the programs stop.
func newWorld(t *testing.T, o options) *testCluster {
	t.Helper()
	cluster, err := testcluster.New(testcluster.Config{Dir: t.TempDir(), Bin: built(t), ServerFlags: o.serverFlags, Listen: o.listen})
	if err != nil {
		t.Fatal(err)
	}
	w := worldOf(t, cluster)
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.StartServer(ctx))
	return w
}

func worldOf(t *testing.T, cluster *testcluster.Cluster) *testCluster {
	w := &testCluster{
		T: t, Cluster: cluster, ingress: map[string]string{}, pools: map[string]string{},
		id: strconv.FormatInt(int64(os.Getpid()), 36) + strconv.FormatInt(worlds.Add(1), 36),
	}
	t.Cleanup(w.end)
	return w
}

// oneNode is a cluster with one agent, n1, on the engine that the tests share.
func oneNode(t *testing.T, agentFlags ...string) *testCluster {
	t.Helper()
	host := testdocker.Engine(t)
	t.Parallel()
	w := newWorld(t, options{})
	w.agent("n1", host, nil, agentFlags...)
	return w
}

// agent starts one on an engine and waits until its node is Ready. enter, where not nil, leads into the engine's
// network namespace.
func (w *testCluster) agent(name, host string, second *testdocker.Second, flags ...string) {
	w.Helper()
	testdocker.Images(w.T, host, testimage.WebV1, testimage.WebV2, testimage.KV, testimage.Job)
	a := testcluster.Agent{Name: name, DockerHost: host, Flags: flags}
	if second == nil {
		a.Pool = <-pools
		w.pools[name] = a.Pool
	} else {
		a.Enter = second.Command(w.Context(), "true").Args
		a.Enter = a.Enter[:len(a.Enter)-1]
		a.Server = strings.Replace(w.URL(), "127.0.0.1", second.Gateway, 1)
		a.Ingress = second.Address + ":8081"
	}
	w.engines = append(w.engines, host)
	w.startAgent(a)
}

// sub runs a part of the test under a name of its own, on the same cluster. The verbs end that part alone.
func (w *testCluster) sub(name string, part func(w *testCluster)) {
	w.Helper()
	w.Run(name, func(t *testing.T) {
		same := *w
		same.T = t
		part(&same)
	})
}

func (w *testCluster) startAgent(a testcluster.Agent) {
	w.Helper()
	var err error
	w.ingress[a.Name], err = w.StartAgent(a)
	w.must(err)
	w.ready(a.Name)
}

func (w *testCluster) ready(node string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(w.AwaitNode(ctx, node, api.NodeReady))
}

// stored waits until an agent has a text on disk. It stores what the server says a moment after it has heard it, and a restart
// without the server needs it.
func (w *testCluster) stored(node, file, text string) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, fmt.Sprintf("the agent of %s stores %s in %s", node, text, file), func(context.Context) error {
		data, err := os.ReadFile(filepath.Join(w.Dir, "agent-"+node, file))
		if err == nil && !strings.Contains(string(data), text) {
			err = errors.New("it is not there")
		}
		return err
	}))
}

func (w *testCluster) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *testCluster) patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(w.Context(), patience)
}

// eventually waits until check has no error.
func (w *testCluster) eventually(what string, check func() error) {
	w.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.must(testcluster.WaitFor(ctx, what, func(context.Context) error { return check() }))
}

// name makes a project's name that no other test on this machine has: an engine's names are shared.
func (w *testCluster) name(short string) string { return short + "-" + w.id }

// end runs after the test, when its own context is over.
func (w *testCluster) end() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), patience)
	defer cancel()
	if w.Failed() {
		w.Log(w.Dump(ctx)) // also without a server: the agents have logs
	} else if w.Server != nil && !w.Server.Exited() {
		if err := w.deleteAll(ctx); err != nil {
			w.Errorf("%v\n%s", err, w.Dump(ctx))
		}
	}
	for _, host := range w.engines {
		if held, err := w.Held(ctx, host, ""); !w.Failed() && (err != nil || !held.Empty()) {
			w.Errorf("%s holds, when everything is deleted (%v):\n%s", host, err, held)
		}
	}
	w.noPanics()
	stop, cancelStop := context.WithTimeout(context.WithoutCancel(w.Context()), patience)
	defer cancelStop()
	for _, host := range w.engines {
		if w.Failed() { // the agents would make again what is swept while they run
			w.killAgents()
			if err := w.Sweep(stop, host); err != nil {
				w.Error(err)
			}
		}
	}
	if err := w.Close(stop); err != nil {
		w.Error(err)
	}
	for _, pool := range w.pools {
		pools <- pool
	}
}

func (w *testCluster) killAgents() {
	for _, a := range w.Agents {
		if err := a.Kill(); err != nil {
			w.Error(err)
		}
	}
}

// noPanics looks for what no log of ours may ever have.
func (w *testCluster) noPanics() {
	files, err := filepath.Glob(filepath.Join(w.Dir, "*.log"))
	if err != nil {
		w.Error(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			w.Error(err)
			continue
		}
		for _, bad := range []string{"panic:", "goroutine 1 [", "fatal error:"} {
			if at := strings.Index(string(text), bad); at >= 0 {
				w.Errorf("%s:\n%.3000s", filepath.Base(file), text[at:])
			}
		}
	}
}

// deleteAll empties the cluster as a person would, and waits until the engines have nothing left of it.
func (w *testCluster) deleteAll(ctx context.Context) error {
	sources, err := w.Sources()
	if err != nil {
		return err
	}
	projects, err := w.Projects()
	if err != nil {
		return err
	}
	all, err := sources.ListSources(ctx, &carav1.ListRequest{})
	if err != nil {
		return fmt.Errorf("list sources: %w", err)
	}
	for _, s := range all.GetItems() {
		name := s.GetMetadata().GetName()
		if _, err := sources.DeleteSource(ctx, &carav1.DeleteRequest{Name: name}); err != nil {
			return fmt.Errorf("delete source %s: %w", name, err)
		}
		err := testcluster.WaitFor(ctx, "source "+name+" is gone", func(ctx context.Context) error {
			_, err := sources.GetSource(ctx, &carav1.GetRequest{Name: name})
			if api.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("it is still there (%w)", err)
		})
		if err != nil {
			return err
		}
	}
	left, err := projects.ListProjects(ctx, &carav1.ListProjectsRequest{})
	if err != nil {
		return fmt.Errorf("list projects: %w", err)
	}
	var names []string
	for _, p := range left.GetItems() {
		name := p.GetMetadata().GetName()
		names = append(names, name)
		if _, err := projects.DeleteProject(ctx, &carav1.DeleteProjectRequest{Name: name, NoWait: true}); err != nil && !api.IsNotFound(err) {
			return fmt.Errorf("delete project %s: %w", name, err)
		}
	}
	if err := w.AwaitGone(ctx, names...); err != nil {
		return err
	}
	return w.deleteVolumes(ctx)
}

// deleteVolumes deletes the data that the projects left.
func (w *testCluster) deleteVolumes(ctx context.Context) error {
	conn, err := w.Conn()
	if err != nil {
		return err
	}
	volumes := carav1.NewVolumeServiceClient(conn)
	return testcluster.WaitFor(ctx, "all volumes are deleted", func(ctx context.Context) error {
		left, err := volumes.ListVolumes(ctx, &carav1.ListVolumesRequest{})
		if err != nil || len(left.GetItems()) == 0 {
			return err
		}
		for _, v := range left.GetItems() {
			if _, err := volumes.DeleteVolume(ctx, &carav1.DeleteRequest{Name: v.GetMetadata().GetName()}); err != nil && !api.IsNotFound(err) {
				return fmt.Errorf("delete volume: %w", err)
			}
		}
		return fmt.Errorf("%d are left", len(left.GetItems()))
	})
}
