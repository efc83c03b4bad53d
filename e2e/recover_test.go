package e2e

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/api"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// loseAll kills all servers and all members of etcd.
func (p *pair) loseAll() {
	p.Helper()
	for _, s := range p.servers {
		p.must(s.Server.Kill())
	}
	for i := range 3 {
		p.etcd.Kill(i)
	}
}

// recovers runs `cara-server recover` on a data directory. It must say what is wanted.
func (p *pair) recovers(want, member string, args ...string) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), 3*patience)
	defer cancel()
	flags := []string{"recover", "--log-level", "error", "--etcd-prefix", "/e2e/", "--etcd-program", p.etcd.Program(), "--etcd-data-dir", member}
	r, err := p.Program(ctx, "", "cara-server", append(flags, args...)...)
	p.must(err)
	if !strings.Contains(r.Stdout+r.Stderr, want) {
		p.Fatalf("recover: %d %s%s, want %q", r.Code, r.Stdout, r.Stderr, want)
	}
}

// successor starts a server at the address of the lost ones.
func (p *pair) successor(dir string, flags []string) *testcluster.Cluster {
	p.Helper()
	ctx, cancel := p.patience()
	defer cancel()
	s, err := testcluster.New(testcluster.Config{Dir: dir, Bin: p.Bin, Listen: p.Listen, ServerFlags: flags})
	p.must(err)
	token, err := os.ReadFile(filepath.Join(p.DataDir(), "admin.token"))
	p.must(err)
	p.must(os.MkdirAll(s.DataDir(), 0o700))
	p.must(os.WriteFile(filepath.Join(s.DataDir(), "admin.token"), token, 0o600))
	p.must(s.StartServer(ctx))
	p.Server = s.Server
	return s
}

// TestRecover: etcd and all servers are lost at once, and the data of one member of etcd are left. The cluster comes back from them: as a
// server alone, and on a new etcd. Each time the agents, the keys and the Secrets are those of before, and no container notices.
func TestRecover(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	fresh := testetcd.Start(t, testetcd.Config{Members: 3, TLS: true}) // first, so that it ends last
	p := newServers(t, false)
	p.agent("n1", host, nil)
	kept := p.name("kept")
	p.secret(kept, map[string]string{"greeting": "kept safe"})
	p.apply(p.web(kept, testimage.WebV1))
	p.running(kept)
	before := p.containers(host, kept)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	p.loseAll()
	same := func(dir string, flags []string) *testcluster.Cluster {
		t.Helper()
		s := p.successor(dir, flags)
		p.ready("n1")
		p.running(kept)
		if after := p.containers(host, kept); !maps.Equal(before, after) {
			t.Errorf("containers were %v and are %v", before, after)
		}
		return s
	}

	alone, key := t.TempDir(), filepath.Join(p.Dir, "cluster.key")
	p.recovers("has no member/snap/db", t.TempDir(), "--to", "pebble:"+t.TempDir())
	p.recovers("there is no cluster key", p.etcd.DataDir(1), "--to", "pebble:"+t.TempDir())
	p.recovers("copied ", p.etcd.DataDir(1), "--to", "pebble:"+filepath.Join(alone, "server"), "--cluster-key-file", key)
	s := same(alone, nil)
	p.must(s.Server.Stop(ctx))

	to := append(etcdFlags(fresh), "--cluster-key-file", key)
	p.recovers("copied ", p.etcd.DataDir(2), append([]string{"--to", "etcd", "--data-dir", filepath.Join(t.TempDir(), "new")}, to[2:]...)...)
	p.recovers("choose another --etcd-prefix", p.etcd.DataDir(2), append([]string{"--to", "etcd", "--data-dir", filepath.Join(t.TempDir(), "new")}, to[2:]...)...)
	same(t.TempDir(), to)
	p.writes(p.name("later"))
	p.running(p.name("later"))
}

// TestRecoverFromAMemberThatWasBehind: the member whose data are left did not have the last changes. In them, one project moved to
// another node, one moved there and back, and one is new. The two nodes share an engine, where the names of a project's containers can
// exist once, so a second copy would fail. Afterwards each project runs once, where the recovered state says, and what the state does
// not have is gone. The project that is on its node with a later epoch goes on without a restart.
func TestRecoverFromAMemberThatWasBehind(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	p := newServers(t, false)
	p.agent("n1", host, nil)
	moves, returns, later := p.name("moves"), p.name("returns"), p.name("later")
	p.apply(p.web(moves, testimage.WebV1) + "---\n" + p.web(returns, testimage.WebV1))
	p.running(moves, returns)
	p.agent("n2", host, nil)
	left := (p.etcd.Leader() + 1) % 3 // writes go on without a pause
	p.etcd.Kill(left)

	on := func(name, node string) {
		t.Helper()
		p.until(name, "runs on "+node, func(pr *carav1.Project) bool {
			if pr.GetStatus().GetPhase() == api.PhaseFailed {
				t.Fatalf("a second copy was started: %s", testcluster.Summary(pr))
			}
			return testcluster.Runs(pr) && pr.GetStatus().GetNodeRef() == node
		})
	}
	for _, args := range [][]string{{"drain", "n1", "--timeout", patience.String()}, {"uncordon", "n1"}, {"move", returns, "--to", "n1"}, {"cordon", "n2"}} {
		p.succeeds(args...)
	}
	on(moves, "n2")
	on(returns, "n1")
	p.apply(p.web(later, testimage.WebV1))
	on(later, "n1")
	before, startedAt := p.containers(host, returns), ""
	for _, id := range before {
		startedAt = p.state(host, id).StartedAt
	}
	p.loseAll()

	alone := t.TempDir()
	p.recovers("copied ", p.etcd.DataDir(left), "--to", "pebble:"+filepath.Join(alone, "server"), "--cluster-key-file", filepath.Join(p.Dir, "cluster.key"))
	p.successor(alone, nil)
	p.ready("n1")
	p.ready("n2")
	on(moves, "n1")
	on(returns, "n1")
	ctx, cancel := p.patience()
	defer cancel()
	p.must(p.AwaitNothing(ctx, host, later))
	p.event("Node", "n2", api.ReasonRecovered, "the cluster was recovered from an older state: this node removes "+moves+", which another node gets")
	p.equal("n1", host)
	p.equal("n2", host)
	for service, id := range before {
		p.calm(host, service, id, startedAt)
	}
}
