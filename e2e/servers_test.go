package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/api"
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

// listed waits until `get servers` shows these servers with their states.
func (p *pair) listed(want map[string]string) {
	p.Helper()
	ctx, cancel := p.patience()
	defer cancel()
	var last string
	p.must(testcluster.WaitFor(ctx, "the servers are listed", func(ctx context.Context) error {
		last = p.anywhere(ctx, "get", "servers").Stdout
		states := map[string]string{}
		for _, line := range strings.Split(strings.TrimSpace(last), "\n")[1:] {
			if cells := strings.Fields(line); len(cells) > 1 {
				states[cells[0]] = cells[1]
			}
		}
		if !maps.Equal(states, want) {
			return fmt.Errorf("they are %v, want %v", states, want)
		}
		return nil
	}))
}

// TestAnyServer: without a balancer, agents and people use the address of any server. A standby passes everything on: calls, watches,
// shells, and the connections of agents. When the active server is killed, agents and people go on with the other one.
func TestAnyServer(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	p := newServers(t, false) // the verbs use the standby
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
	if r := p.ctl("said", "exec", "-i", tools, "--", "sh", "-c", "cat; exit 7"); r.Code != 7 || r.Stdout != "said" {
		t.Errorf("exec through the standby: %+v", r)
	}
	watch := p.begin("get", "projects", "-w")
	p.prints(watch, kept)
	p.listed(map[string]string{p.servers[0].Listen: api.ServerActive, p.servers[1].Listen: api.ServerStandby})
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	p.must(testcluster.WaitFor(ctx, "the agent knows both servers", func(context.Context) error {
		text, err := os.ReadFile(filepath.Join(p.Dir, "agent-n1", "servers.json"))
		if err == nil && !strings.Contains(string(text), p.servers[0].Listen) {
			return fmt.Errorf("it knows %s", text)
		}
		return err
	}))

	at := time.Now()
	p.must(p.servers[0].Server.Kill())
	p.takesOver(1, at)
	p.ready("n1")
	p.running(p.name("empty"))
	t.Logf("a new project runs after %.1f s", time.Since(at).Seconds())
	p.listed(map[string]string{p.servers[1].Listen: api.ServerActive})
	p.must(p.servers[0].StartStandby(ctx))

	at = time.Now()
	p.must(p.servers[1].Server.Kill()) // the agent has never been told to use the other one
	p.must(p.servers[0].AwaitReady(ctx))
	t.Logf("server 0: ready after %.1f s", time.Since(at).Seconds())
	p.must(p.servers[1].StartStandby(ctx))
	p.Server = p.servers[1].Server
	p.writes(p.name("later"))
	p.running(p.name("later"))
	p.listed(map[string]string{p.servers[0].Listen: api.ServerActive, p.servers[1].Listen: api.ServerStandby})
	if after := p.containers(host, kept); !maps.Equal(before, after) {
		t.Errorf("containers were %v and are %v", before, after)
	}
}
