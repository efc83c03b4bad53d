package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caravanserai/cara/internal/test/testneed"
)

// TestRunbooks does what docs/high-availability.md says for each loss, on one cluster of three members of etcd and two servers. The loss
// of etcd's majority is TestRecover; containers are in TestTakeover and TestAnyServer.
func TestRunbooks(t *testing.T) {
	testneed.NotShort(t)
	t.Parallel()
	p := newServers(t, false)
	p.writes(p.name("kept"))
	tokenFile := filepath.Join(p.DataDir(), "admin.token")
	token, err := os.ReadFile(tokenFile)
	p.must(err)
	part := func(name string, do func()) {
		p.sub(name, func(w *testCluster) {
			before := p.testCluster
			p.testCluster = w
			defer func() { p.testCluster = before; before.Server = w.Server }()
			do()
			if r := p.anywhere(t.Context(), "get", "project", p.name("kept")); r.Code != 0 {
				t.Errorf("the project is gone: %s", r.Stderr)
			}
		})
	}

	part("nothing is lost", func() {
		p.eventually("the metrics of etcd", func() error {
			if _, body := p.rest("GET", "/metrics", nil); strings.Count(body, "cara_etcd_member_up{") != 3 || strings.Count(body, "cara_etcd_database_in_use_bytes{") != 3 {
				return errors.New("they are not of three members")
			}
			return nil
		})
	})
	part("a server is lost", func() {
		p.must(p.servers[1].Server.Kill())
		p.Server = p.servers[0].Server
		p.must(os.RemoveAll(p.servers[1].DataDir())) // the machine is new
		p.starts(1)
		p.listed(p.servers...)
	})
	part("a site is lost", func() { // one of three: the server that runs the loops, and a member of etcd
		p.etcd.Kill(0)
		at := time.Now()
		p.must(p.servers[0].Server.Kill())
		p.takesOver(1, at)
		p.starts(0)
		p.etcd.Run(0)
	})
	part("a member of etcd is lost for good", func() {
		p.etcd.Kill(0)
		p.writes(p.name("while"))
		p.etcd.Replace(0)
		p.etcd.Kill(1) // the majority needs the new one
		p.writes(p.name("after"))
		p.etcd.Run(1)
	})
	part("all servers are lost", func() {
		for _, s := range p.servers {
			p.must(s.Server.Kill())
			p.must(os.RemoveAll(s.DataDir()))
		}
		p.starts(0)
		p.starts(1)
		p.must(os.WriteFile(tokenFile, token, 0o600)) // people have theirs; etcd has its hash
		p.listed(p.servers...)
	})
	part("the cluster key is lost", func() {
		p.stopAll()
		key := filepath.Join(p.servers[0].Dir, "cluster.key")
		p.must(os.Remove(key))
		r, err := p.Program(t.Context(), "", "cara-server", append([]string{"--data-dir", p.servers[0].DataDir(), "--listen", "127.0.0.1:0"}, p.servers[0].ServerFlags...)...)
		if p.must(err); r.Code == 0 || !strings.Contains(r.Stderr, "there is no cluster key") {
			t.Errorf("without the key: %d %s", r.Code, r.Stderr)
		}
		p.etcd.Delete("/e2e/shared")
		p.starts(0) // its data directory has the identity; it makes a new key
		p.starts(1)
		p.listed(p.servers...)
	})
	p.Server = p.servers[1].Server
}

// starts starts a server, and waits until it is ready.
func (p *pair) starts(i int) {
	p.Helper()
	ctx, cancel := p.patience()
	defer cancel()
	p.must(p.servers[i].StartBeside(ctx))
}

func (p *pair) stopAll() {
	p.Helper()
	ctx, cancel := p.patience()
	defer cancel()
	for _, s := range p.servers {
		p.must(s.Server.Stop(ctx))
	}
}
