package e2e

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/internal/test/testcluster"
	"github.com/caravanserai/cara/internal/test/testdocker"
	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/internal/test/testimage"
)

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
	for _, s := range p.servers {
		p.must(s.Server.Kill())
	}
	for i := range 3 {
		p.etcd.Kill(i)
	}
	flags := []string{"recover", "--log-level", "error", "--etcd-prefix", "/e2e/", "--etcd-program", p.etcd.Program(), "--etcd-data-dir"}
	recovers := func(want string, args ...string) {
		t.Helper()
		r, err := p.Program(ctx, "", "cara-server", append(flags, args...)...)
		p.must(err)
		if !strings.Contains(r.Stdout+r.Stderr, want) {
			t.Fatalf("recover: %d %s%s, want %q", r.Code, r.Stdout, r.Stderr, want)
		}
	}
	same := func(dir string, flags []string) *testcluster.Cluster {
		t.Helper()
		within, cancel := p.patience()
		defer cancel()
		s, err := testcluster.New(testcluster.Config{Dir: dir, Bin: p.Bin, Listen: p.Listen, ServerFlags: flags})
		p.must(err)
		token, err := os.ReadFile(filepath.Join(p.DataDir(), "admin.token"))
		p.must(err)
		p.must(os.MkdirAll(s.DataDir(), 0o700))
		p.must(os.WriteFile(filepath.Join(s.DataDir(), "admin.token"), token, 0o600))
		p.must(s.StartServer(within))
		p.Server = s.Server
		p.ready("n1")
		p.running(kept)
		if after := p.containers(host, kept); !maps.Equal(before, after) {
			t.Errorf("containers were %v and are %v", before, after)
		}
		return s
	}

	alone, key := t.TempDir(), filepath.Join(p.Dir, "cluster.key")
	recovers("has no member/snap/db", t.TempDir(), "--to", "pebble:"+t.TempDir())
	recovers("there is no cluster key", p.etcd.DataDir(1), "--to", "pebble:"+t.TempDir())
	recovers("copied ", p.etcd.DataDir(1), "--to", "pebble:"+filepath.Join(alone, "server"), "--cluster-key-file", key)
	s := same(alone, nil)
	p.must(s.Server.Stop(ctx))

	to := append(etcdFlags(fresh), "--cluster-key-file", key)
	recovers("copied ", append([]string{p.etcd.DataDir(2), "--to", "etcd", "--data-dir", filepath.Join(t.TempDir(), "new")}, to[2:]...)...)
	recovers("choose another --etcd-prefix", append([]string{p.etcd.DataDir(2), "--to", "etcd", "--data-dir", filepath.Join(t.TempDir(), "new")}, to[2:]...)...)
	same(t.TempDir(), to)
	p.writes(p.name("later"))
	p.running(p.name("later"))
}
