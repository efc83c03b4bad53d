package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/internal/test/testgit"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// upgrade is three servers and two agents that are replaced one after the other while clients and pushes go on.
type upgrade struct {
	*pair
	load   *clients
	host   string
	repo   *testgit.TestRepo
	agents map[string]testcluster.Agent

	watching sync.Mutex
	unready  map[string]int // how often a node was seen that was not Ready
}

// TestRollingUpgrade replaces three servers and two agents one after the other, while clients read and write at all servers and a
// repository gets pushes. A client that retries once, at the next server, sees no failure. No node becomes NotReady, and no container
// starts again. CARA_OLD_PROGRAMS is a folder with the programs of an older version: the upgrade then begins with them.
func TestRollingUpgrade(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	u := newUpgrade(t, host)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	kept := []string{u.name("kept"), u.name("kept2"), u.name("kept3")} // clients read the first one
	for _, name := range kept {
		u.apply(u.web(name, testimage.WebV1))
	}
	u.running(kept...)
	before := u.started(kept)

	running, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() { u.load.run(running, 6, u.load.mixed) })
	all.Go(func() { u.watchNodes(running) })
	for i, s := range []int{1, 2, 0} { // the one with the loops last
		u.replaceServer(ctx, s)
		u.pushes(fmt.Sprintf("server %d is replaced", i+1))
	}
	for name := range u.agents {
		u.replaceAgent(ctx, name)
		u.pushes("the agent of " + name + " is replaced")
	}
	for _, s := range u.servers {
		u.must(s.AwaitReady(ctx))
	}
	u.must(u.load.settles(ctx))
	stop()
	all.Wait()
	u.Logf("%d calls, %d repeated, %d failed twice; nodes that were not Ready: %v", u.load.calls.Load(), u.load.retried.Load(), len(u.load.lost), u.unready)
	if len(u.load.lost) > 0 {
		t.Errorf("%d of %d calls failed twice, the first: %s", len(u.load.lost), u.load.calls.Load(), u.load.lost[0])
	}
	if len(u.unready) > 0 {
		t.Errorf("nodes were not Ready: %v", u.unready)
	}
	if after := u.started(kept); !maps.Equal(before, after) {
		t.Errorf("containers started at %v, and now at %v", before, after)
	}
}

// newUpgrade starts the older servers and agents, and a source.
func newUpgrade(t *testing.T, host string) *upgrade {
	t.Helper()
	programs := built(t)
	old := programs
	if dir := os.Getenv("CARA_OLD_PROGRAMS"); dir != "" {
		old = dir
	}
	p := &pair{etcd: testetcd.Start(t, testetcd.Config{Members: 3, TLS: true})}
	cluster, err := testcluster.New(testcluster.Config{Dir: t.TempDir(), Bin: old})
	if err != nil {
		t.Fatal(err)
	}
	flags := append(etcdFlags(p.etcd), "--cluster-key-file", filepath.Join(cluster.Dir, "cluster.key"))
	for i := range 3 {
		cfg := testcluster.Config{Dir: t.TempDir(), Bin: old, ServerFlags: flags}
		if i == 0 {
			cfg.Dir = cluster.Dir
		}
		if i == 1 {
			cfg.Listen = cluster.Listen // the verbs use this one
		}
		p.add(t, cfg)
	}
	p.testCluster = worldOf(t, cluster)
	ctx, cancel := p.patience()
	defer cancel()
	p.must(p.servers[0].StartServer(ctx))
	u := &upgrade{pair: p, host: host, agents: map[string]testcluster.Agent{}, unready: map[string]int{}}
	u.load = newClients(t, p.testCluster, p.servers)
	for _, s := range p.servers[1:] {
		u.begins(ctx, s)
	}
	p.Server = p.servers[0].Server
	testdocker.Images(t, host, testimage.WebV1, testimage.WebV2)
	var addresses []string
	for _, s := range p.servers {
		addresses = append(addresses, s.URL())
	}
	p.engines = append(p.engines, host)
	for _, name := range []string{"n1", "n2"} {
		pool := <-pools
		p.pools[name] = pool
		u.agents[name] = testcluster.Agent{Name: name, DockerHost: host, Pool: pool, Server: strings.Join(addresses, ",")}
		p.startAgent(u.agents[name])
	}
	cluster.Bin = programs // from here on, also caractrl
	u.repo = p.repository("platform")
	return u
}

// begins starts a server and waits until it answers. An older one may never be ready beside another one.
func (u *upgrade) begins(ctx context.Context, s *testcluster.Cluster) {
	u.Helper()
	process, err := testcluster.Start(filepath.Join(s.Dir, "server.log"), s.Env(), s.ServerArgs()...)
	u.must(err)
	s.Server = process
	u.must(testcluster.WaitFor(ctx, s.Listen+" answers", func(ctx context.Context) error {
		if s.Server.Exited() {
			return testcluster.Fatal(errors.New(s.Server.Tail(20)))
		}
		conn, err := testcluster.Dial(s.Address(), u.load.token)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // the call is over
		_, err = carav1.NewProjectServiceClient(conn).ListProjects(ctx, &carav1.ListProjectsRequest{Limit: 1})
		return err
	}))
}

func (u *upgrade) replaceServer(ctx context.Context, s int) {
	u.Helper()
	u.must(u.servers[s].Server.Stop(ctx))
	u.servers[s].Bin = u.Bin
	u.begins(ctx, u.servers[s])
	u.Server = u.servers[s].Server
	u.must(u.load.settles(ctx))
}

func (u *upgrade) replaceAgent(ctx context.Context, name string) {
	u.Helper()
	a := u.agents[name]
	a.Ingress = u.ingress[name]
	u.must(u.Agents[name].Stop(ctx))
	u.startAgent(a) //nolint:contextcheck // it waits with a patience of its own
}

// pushes changes a project in git, and waits until it runs as git says.
func (u *upgrade) pushes(message string) {
	u.Helper()
	name := u.name("pushed")
	u.repo.Write("pushed.yaml", project(name, "services: [{name: web, image: "+testimage.WebV1+", env: [{name: AT, value: "+message+"}]}]"))
	u.push(u.repo, message)
	u.until(name, message, func(p *carav1.Project) bool {
		return testcluster.Runs(p) && p.GetSpec().GetServices()[0].GetEnv()[0].GetValue() == message
	})
}

// started returns when each container of some projects has started.
func (u *upgrade) started(names []string) map[string]string {
	u.Helper()
	out := map[string]string{}
	for _, name := range names {
		for service, at := range u.startTimes(u.host, name) {
			out[name+"/"+service] = u.containers(u.host, name)[service] + " at " + at
		}
	}
	return out
}

// watchNodes looks at the nodes all the time.
func (u *upgrade) watchNodes(ctx context.Context) {
	u.load.run(ctx, 1, func(ctx context.Context, _, i int) {
		u.load.once(i, func(conn *grpc.ClientConn) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			nodes, err := carav1.NewNodeServiceClient(conn).ListNodes(ctx, &carav1.ListRequest{})
			u.watching.Lock()
			defer u.watching.Unlock()
			for _, n := range nodes.GetItems() {
				if s := n.GetStatus().GetState(); s != api.NodeReady {
					u.unready[n.GetMetadata().GetName()+" "+s]++
				}
			}
			return err
		})
	})
}
