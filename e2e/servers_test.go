package e2e

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// both returns the addresses of the two servers for --server.
func (p *pair) both() string { return p.servers[0].URL() + "," + p.servers[1].URL() }

// anywhere runs caractrl with the addresses of both servers.
func (p *pair) anywhere(ctx context.Context, args ...string) testcluster.Result {
	p.Helper()
	r, err := p.Program(ctx, "", "caractrl", append([]string{"--server", p.both(), "--token-file", filepath.Join(p.DataDir(), "admin.token")}, args...)...)
	p.must(err)
	return r
}

// listed waits until `get servers` shows these servers, and each loop on one of them.
func (p *pair) listed(want ...*testcluster.Cluster) {
	p.Helper()
	ctx, cancel := p.patience()
	defer cancel()
	p.must(testcluster.WaitFor(ctx, "the servers and their loops are listed", func(ctx context.Context) error {
		list := p.anywhere(ctx, "get", "servers").Stdout
		for _, s := range want {
			if !strings.Contains(list, s.Listen+" ") {
				return fmt.Errorf("%s is not in %s", s.Listen, list)
			}
		}
		for _, loop := range []string{"sources", "reconciler", "scheduler", "gc"} {
			if strings.Count(list, loop) != 1 {
				return fmt.Errorf("the loop %s does not run on one server: %s", loop, list)
			}
		}
		if n := strings.Count(list, "\n") - 1; n != len(want) {
			return fmt.Errorf("%d servers are listed, want %d: %s", n, len(want), list)
		}
		return nil
	}))
}

// TestAnyServer: without a balancer, agents and people use the address of any server. Each server answers every call: it passes shells
// and the like on to the server that has the agent. When a server is killed, agents and people go on with the other one.
func TestAnyServer(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	p := newServers(t, false) // the verbs use the second server
	testdocker.Images(t, host, testimage.WebV1)
	pool := <-pools
	p.pools["n1"] = pool
	p.engines = append(p.engines, host)
	p.startAgent(testcluster.Agent{Name: "n1", DockerHost: host, Pool: pool, Server: p.servers[1].URL()}) // learns the other address
	p.ready("n1")
	kept := p.name("kept")
	p.secret(kept, map[string]string{"greeting": "kept safe"})
	p.apply(p.web(kept, testimage.WebV1))
	p.running(kept)
	before := p.containers(host, kept)
	tools := p.toolbox("tools")
	for _, s := range p.servers { // the agent is connected to one of them
		r, err := p.Program(t.Context(), "said", "caractrl", "--server", s.URL(), "--token-file", filepath.Join(p.DataDir(), "admin.token"),
			"exec", "-i", tools, "--", "sh", "-c", "cat; exit 7")
		if p.must(err); r.Code != 7 || r.Stdout != "said" {
			t.Errorf("exec at %s: %+v", s.Listen, r)
		}
	}
	watch := p.begin("get", "projects", "-w")
	p.prints(watch, kept)
	p.listed(p.servers...)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	p.stored("n1", "servers.json", p.servers[0].Listen)

	at := time.Now()
	p.must(p.servers[0].Server.Kill())
	p.takesOver(1, at)
	p.ready("n1")
	p.running(p.name("empty"))
	t.Logf("a new project runs after %.1f s", time.Since(at).Seconds())
	p.listed(p.servers[1])
	p.must(p.servers[0].StartBeside(ctx))

	at = time.Now()
	p.must(p.servers[1].Server.Kill()) // the agent has never been told to use the other one
	p.must(p.servers[0].AwaitReady(ctx))
	t.Logf("server 0: ready after %.1f s", time.Since(at).Seconds())
	p.must(p.servers[1].StartBeside(ctx))
	p.Server = p.servers[1].Server
	p.writes(p.name("later"))
	p.running(p.name("later"))
	p.listed(p.servers...)
	if after := p.containers(host, kept); !maps.Equal(before, after) {
		t.Errorf("containers were %v and are %v", before, after)
	}
}
