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

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/internal/test/testimage"
)

// pair is two servers on one etcd of three members. Some tests add a third: see third. The verbs of the cluster use a balancer that
// asks /readyz, or the second server. The data directory of the cluster is that of the first server.
type pair struct {
	*testCluster
	etcd    *testetcd.Cluster
	servers []*testcluster.Cluster
}

func newPair(t *testing.T) *pair {
	t.Helper()
	return newServers(t, true)
}

// newServers starts two servers. Without a balancer, the verbs of the cluster use the address of the second one.
func newServers(t *testing.T, balanced bool) *pair {
	t.Helper()
	front, err := testcluster.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return newServersAt(t, balanced, front)
}

// newServersAt is newServers with the address of the balancer or the second server, and more flags of both servers.
func newServersAt(t *testing.T, balanced bool, front string, more ...string) *pair {
	t.Helper()
	p := &pair{etcd: testetcd.Start(t, testetcd.Config{Members: 3, TLS: true})}
	cluster, err := testcluster.New(testcluster.Config{Dir: t.TempDir(), Bin: built(t), Listen: front})
	if err != nil {
		t.Fatal(err)
	}
	flags := slices.Concat(etcdFlags(p.etcd), []string{"--cluster-key-file", filepath.Join(cluster.Dir, "cluster.key")}, more)
	for i, dir := range []string{cluster.Dir, t.TempDir()} {
		cfg := testcluster.Config{Dir: dir, Bin: cluster.Bin, ServerFlags: flags}
		if i == 1 && !balanced {
			cfg.Listen = front
		}
		p.add(t, cfg)
	}
	if balanced {
		balance(t, front, p.servers) // before the cluster, so that it ends after it
	}
	p.testCluster = worldOf(t, cluster)
	ctx, cancel := p.patience()
	defer cancel()
	p.must(p.servers[0].StartServer(ctx))
	p.must(p.servers[1].StartBeside(ctx))
	p.Server = p.servers[0].Server
	return p
}

// add adds a server that is not started yet, and returns it.
func (p *pair) add(t *testing.T, cfg testcluster.Config) *testcluster.Cluster {
	t.Helper()
	s, err := testcluster.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.servers = append(p.servers, s)
	t.Cleanup(func() {
		if s.Server != nil && !s.Server.Exited() {
			_ = s.Server.Kill() // the test is over
		}
	})
	return s
}

// etcdFlags are the flags of a server that keeps its state in etcd.
func etcdFlags(c *testetcd.Cluster) []string {
	return []string{
		"--store", "etcd", "--etcd-endpoints", strings.Join(c.Endpoints, ","), "--etcd-prefix", "/e2e/",
		"--etcd-ca", c.CAFile, "--etcd-cert", c.CertFile, "--etcd-key", c.KeyFile,
	}
}

// balance starts HAProxy in front of the servers.
func balance(t *testing.T, front string, servers []*testcluster.Cluster) {
	t.Helper()
	config := "defaults\n  mode tcp\n  timeout connect 10s\n  timeout check 3s\n  timeout client 10m\n  timeout server 10m\n" +
		"listen cara\n  bind " + front + "\n  option httpchk GET /readyz\n  default-server check inter 200ms fall 1 rise 1 on-marked-down shutdown-sessions\n"
	for i, s := range servers {
		config += fmt.Sprintf("  server s%d %s\n", i, s.Listen)
	}
	haproxy(t, config)
}

// takesOver waits until a server serves and a write succeeds, and logs how long that took since an event.
func (p *pair) takesOver(i int, since time.Time) {
	p.Helper()
	ctx, cancel := p.patience()
	defer cancel()
	p.must(p.servers[i].AwaitReady(ctx))
	ready := time.Since(since)
	p.Server = p.servers[i].Server
	p.writes(p.name("empty"))
	p.Logf("server %d: ready after %.1f s, a write succeeds after %.1f s", i, ready.Seconds(), time.Since(since).Seconds())
}

// writes applies a project until that succeeds, as a pipeline does that tries again.
func (p *pair) writes(name string) {
	p.Helper()
	ctx, cancel := p.patience()
	defer cancel()
	p.must(testcluster.WaitFor(ctx, "a write succeeds", func(ctx context.Context) error {
		r, err := p.Ctl(ctx, p.web(name, testimage.WebV1), "apply", "-f", "-")
		if err == nil && r.Code != 0 {
			err = fmt.Errorf("apply: %s", r.Stderr)
		}
		return err
	}))
}

// TestTakeover: when the server that runs the loops is killed, paused or stopped, the other one goes on with the same state, keys and
// agents, and no container notices. The one that comes back serves beside it.
func TestTakeover(t *testing.T) {
	host := testdocker.Engine(t)
	t.Parallel()
	p := newPair(t)
	p.agent("n1", host, nil)
	kept := p.name("kept")
	p.secret(kept, map[string]string{"greeting": "kept safe"})
	p.apply(p.web(kept, testimage.WebV1))
	p.running(kept)
	before := p.containers(host, kept)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	loopsGoOn := func(name string, since time.Time) {
		t.Helper()
		p.writes(p.name(name))
		p.running(p.name(name))
		t.Logf("%s: a new project runs after %.1f s", name, time.Since(since).Seconds())
	}

	at := time.Now()
	p.must(p.servers[0].Server.Kill())
	p.takesOver(1, at)
	p.running(kept)
	p.ready("n1")
	loopsGoOn("killed", at)
	p.must(p.servers[0].StartBeside(ctx))

	p.must(p.servers[1].Server.Pause()) // longer than its leases
	at = time.Now()
	p.takesOver(0, at)
	loopsGoOn("paused", at)
	p.must(p.servers[1].Server.Resume())
	p.must(p.servers[1].AwaitReady(ctx))
	p.listed(p.servers...)

	at = time.Now()
	p.must(p.servers[0].Server.Stop(ctx))
	p.takesOver(1, at)
	loopsGoOn("stopped", at)
	p.must(p.servers[0].StartBeside(ctx))

	p.etcd.Kill(0)
	p.writes(p.name("later"))
	p.running(p.name("later"))
	p.etcd.Run(0)

	at = time.Now()
	p.etcd.Kill(1) // no majority is left
	p.etcd.Kill(2)
	for _, s := range p.servers {
		p.must(s.AwaitUnready(ctx))
	}
	p.Logf("without a majority, no server is ready after %.1f s", time.Since(at).Seconds())
	p.etcd.Run(1)
	p.etcd.Run(2)
	at = time.Now()
	for _, s := range p.servers {
		p.must(s.AwaitReady(ctx))
	}
	p.Logf("with a majority, all are ready after %.1f s", time.Since(at).Seconds())
	loopsGoOn("last", at)
	if after := p.containers(host, kept); !maps.Equal(before, after) {
		t.Errorf("containers were %v and are %v", before, after)
	}
}

// TestMigration: the state of a server alone moves to etcd, from there into a backup, and back to a server alone. Each time the
// agents, the keys and the Secrets are those of before, and no container notices.
func TestMigration(t *testing.T) {
	w := oneNode(t)
	flags := etcdFlags(testetcd.Start(t, testetcd.Config{TLS: true}))
	etcd := "etcd:" + flags[3]
	kept := w.name("kept")
	w.secret(kept, map[string]string{"greeting": "kept safe"})
	w.apply(w.web(kept, testimage.WebV1))
	w.running(kept)
	before := w.containers(w.engines[0], kept)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	migrate := func(from, to, want string) {
		t.Helper()
		r, err := w.Program(ctx, "", "cara-server", append([]string{"migrate", "--log-level", "error", "--from", from, "--to", to}, flags[4:]...)...)
		w.must(err)
		if !strings.Contains(r.Stdout+r.Stderr, want) {
			t.Fatalf("migrate: %d %s%s, want %q", r.Code, r.Stdout, r.Stderr, want)
		}
	}
	same := func() {
		t.Helper()
		within, cancel := w.patience()
		defer cancel()
		w.must(w.StartServer(within))
		w.ready("n1")
		w.running(kept)
		if after := w.containers(w.engines[0], kept); !maps.Equal(before, after) {
			t.Errorf("containers were %v and are %v", before, after)
		}
	}

	w.must(w.Server.Stop(ctx))
	migrate("pebble:"+w.DataDir(), etcd, "copied ")
	migrate("pebble:"+w.DataDir(), etcd, "choose another --etcd-prefix")
	w.ServerFlags = flags
	same()
	migrate(etcd, "pebble:"+t.TempDir(), "stop all servers first")
	file := filepath.Join(t.TempDir(), "cara.tar")
	if r := w.ctl("", "backup", "server", file); r.Code != 0 {
		t.Fatalf("backup: %d %s", r.Code, r.Stderr)
	}

	w.must(w.Server.Stop(ctx))
	w.must(os.Rename(w.DataDir(), w.DataDir()+".old"))
	w.must(os.Mkdir(w.DataDir(), 0o700))
	if out, err := exec.CommandContext(ctx, "tar", "-xf", file, "-C", w.DataDir()).CombinedOutput(); err != nil {
		t.Fatalf("unpack the backup: %v %s", err, out)
	}
	w.ServerFlags = nil
	same()

	w.must(w.Server.Stop(ctx))
	token, err := os.ReadFile(filepath.Join(w.DataDir(), "admin.token"))
	w.must(err)
	key, err := os.ReadFile(filepath.Join(w.DataDir()+".old", "cluster.key"))
	w.must(err)
	w.must(os.RemoveAll(w.DataDir()))
	w.must(os.Mkdir(w.DataDir(), 0o700))
	w.must(os.WriteFile(filepath.Join(w.DataDir(), "admin.token"), token, 0o600))
	migrate(etcd, "pebble:"+w.DataDir(), "there is no cluster key")
	w.must(os.WriteFile(filepath.Join(w.DataDir(), "cluster.key"), key, 0o600))
	migrate(etcd, "pebble:"+w.DataDir(), "copied ")
	same()
}

// TestStrangerIsRefused: a server that comes without the cluster's key, or with another one, does not start and says why.
func TestStrangerIsRefused(t *testing.T) {
	flags := etcdFlags(testetcd.Start(t, testetcd.Config{Program: testetcd.Debian, TLS: true}))
	w := newWorld(t, options{serverFlags: flags})
	ctx, cancel := w.patience()
	defer cancel()
	start := func(dir, want string) {
		t.Helper()
		r, err := w.Program(ctx, "", "cara-server", append([]string{"--data-dir", dir, "--listen", "127.0.0.1:0"}, flags...)...)
		w.must(err)
		if r.Code != 1 || !strings.Contains(r.Stderr, want) {
			t.Errorf("start: %d %s, want %q", r.Code, r.Stderr, want)
		}
	}
	start(t.TempDir(), "there is no cluster key in ")
	other := t.TempDir()
	key, err := os.ReadFile(filepath.Join(w.DataDir(), "secrets.key")) // has the form of a cluster key
	w.must(err)
	w.must(os.WriteFile(filepath.Join(other, "cluster.key"), key, 0o600))
	start(other, "is not the key of the cluster in etcd")
}
