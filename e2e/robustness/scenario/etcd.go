package scenario

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caravanserai/cara/e2e/robustness/fault"
	"github.com/caravanserai/cara/internal/test/testetcd"
	"github.com/caravanserai/cara/internal/test/testlink"
	"github.com/caravanserai/cara/internal/test/testneed"
	"github.com/caravanserai/cara/internal/test/testnet"
)

// members starts etcd. Each member has a network namespace of its own, where faults lose packets,
// and the first one a file system of its own, which faults fill.
func (r *run) members(t *testing.T) {
	t.Helper()
	network, err := testnet.Start(t.Context(), r.Members)
	if errors.Is(err, testnet.ErrNone) {
		testneed.Missing(t, "%v", err)
	}
	r.must(t, err)
	t.Cleanup(func() { r.must(t, network.Close()) })
	r.target.Machines = network.Machines
	dir := t.TempDir()
	r.target.MemberDisk = smallDisk(t, filepath.Join(dir, "m0"), "384m") // etcd takes 128 MiB of it for its log at once
	r.target.Etcd = testetcd.Start(t, testetcd.Config{Members: r.Members, Machines: network.Machines, Dir: dir, Args: []string{"--max-wals", "1"}})
	r.target.Lease = lease
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

// front is a link before the server with this number, and returns its address. Agents and the other servers use it, and clients do not.
func (r *run) front(t *testing.T, i int, server string) string {
	t.Helper()
	address := r.link(t, fmt.Sprintf("agents and servers to server %d", i), server)
	r.fronts = append(r.fronts, "http://"+address)
	return address
}

// link starts a link that faults can cut, and returns where it listens.
func (r *run) link(t *testing.T, name, to string) string {
	t.Helper()
	link, err := testlink.Start(t.Context(), testlink.Address{Network: "tcp", Name: "127.0.0.1:0"}, testlink.Address{Network: "tcp", Name: to})
	r.must(t, err)
	t.Cleanup(func() {
		if err := link.Close(); err != nil {
			t.Error(err)
		}
	})
	r.target.Links[name] = link
	return link.Addr()
}
