package scenario

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/e2e/robustness/fault"
	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/internal/test/testlink"
	"github.com/caravanserai/cara/internal/test/testnet"
)

// members starts etcd. Each member has a network namespace of its own, where faults lose packets,
// and the first one a file system of its own, which faults fill.
func (r *run) members(t *testing.T) {
	t.Helper()
	network := testnet.New(t, r.Members)
	r.target.Machines = network.Machines
	dir := t.TempDir()
	r.target.MemberDisk = smallDisk(t, filepath.Join(dir, "m0"), "384m") // etcd takes 128 MiB of it for its log at once
	cfg := testetcd.Config{Members: r.Members, Machines: network.Machines, Dir: dir, Args: []string{"--max-wals", "1"}}
	if r.options.Clocks {
		for range r.Members {
			cfg.Clocks = append(cfg.Clocks, r.clock(t))
		}
		cfg.Program, r.target.MemberClocks = testetcd.Stepped, cfg.Clocks
	}
	r.target.Etcd, r.target.Lease = testetcd.Start(t, cfg), lease
}

// etcdFlags are the flags of the server with this number. It reaches each member of etcd over a link of its own.
func (r *run) etcdFlags(t *testing.T, i int) []string {
	t.Helper()
	var endpoints []string
	for member, url := range r.target.Etcd.Endpoints {
		endpoints = append(endpoints, "http://"+r.link(t, fmt.Sprintf("%s%d to member %d", fault.EtcdLink, i, member), strings.TrimPrefix(url, "http://")))
	}
	if r.keyFile == "" {
		r.keyFile = filepath.Join(t.TempDir(), "cluster.key")
	}
	return []string{"--store", "etcd", "--etcd-endpoints", strings.Join(endpoints, ","), "--etcd-prefix", "/robustness/", "--cluster-key-file", r.keyFile}
}

// front returns the address of the server with this number for the other servers: a link before it. Agents begin with a link of their own,
// and learn that of the servers. Clients use neither.
func (r *run) front(t *testing.T, i int, server string) string {
	t.Helper()
	r.fronts = append(r.fronts, "http://"+r.link(t, fmt.Sprintf("%s%d", fault.AgentLink, i), server))
	return r.link(t, fmt.Sprintf("%s%d", fault.ServerLink, i), server)
}

// link starts a link that faults can cut, and returns where it listens.
func (r *run) link(t *testing.T, name, to string) string {
	t.Helper()
	link, err := testlink.Loopback(t.Context(), to)
	r.must(t, err)
	t.Cleanup(func() {
		if err := link.Close(); err != nil {
			t.Error(err)
		}
	})
	r.target.Links[name] = link
	return link.Addr()
}
